"""The layers of RAR's transformer, named as in the released checkpoints.

Shape letters: B batch, S sequence length, D width, N heads, K head width; M is 6·D (a block) or 2·D (the final norm).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from torch import Tensor, nn
from torch.nn import functional

from rarkit.models.rar.config import RARConfig

PREFIX = 2
"""Entries before the first token: cls and class."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of new positions to all positions they may see: (q_BNSK, k_BNSK, v_BNSK) to (B, N, S, K)."""


@final
class Attention(nn.Module):
    """Projections around attention, with per-head layer norms of queries and keys; the caller's ``attend`` adds mask or cache."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.q_norm = nn.LayerNorm(config.head_size, eps=config.layer_norm_eps)
        self.k_norm = nn.LayerNorm(config.head_size, eps=config.layer_norm_eps)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, attend: Attend) -> Tensor:
        q_BSNK, k_BSNK, v_BSNK = self.qkv(x_BSD).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        # Under autocast norms return float32 but the values are not float32; the three must have one dtype.
        q_BSNK, k_BSNK = self.q_norm(q_BSNK).to(v_BSNK.dtype), self.k_norm(k_BSNK).to(v_BSNK.dtype)
        read_BNSK = attend(q_BSNK.transpose(1, 2), k_BSNK.transpose(1, 2), v_BSNK.transpose(1, 2))
        out_BSD: Tensor = self.proj_drop(self.proj(read_BNSK.transpose(1, 2).flatten(2)))
        return out_BSD


@final
class MLP(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.mlp_hidden_size)
        self.drop1 = nn.Dropout(config.dropout)
        self.fc2 = nn.Linear(config.mlp_hidden_size, config.hidden_size)
        self.drop2 = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor) -> Tensor:
        out_BSD: Tensor = self.drop2(self.fc2(self.drop1(functional.gelu(self.fc1(x_BSD)))))
        return out_BSD


@final
class Block(nn.Module):
    """A transformer block with adaptive layer norms (AdaLN-zero) or plain ones."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        if config.conditioning == "adaln":
            self.adaLN_modulation = _modulation(config.hidden_size, 6)

    def modulations(self, activated_BSD: Tensor) -> Tensor:
        """Shift, scale and gate of the attention, then of the MLP, from the SiLU of the conditioning vectors: (B, S, 6·D).

        They depend only on class and step. The SiLU is the same for all blocks, so the caller computes it once.
        """
        out_BSM: Tensor = self.adaLN_modulation[1](activated_BSD)
        return out_BSM

    def forward(self, x_BSD: Tensor, modulations_BSM: Tensor | None, attend: Attend) -> Tensor:
        if modulations_BSM is None:
            x_BSD = x_BSD + self.attn(self.norm1(x_BSD), attend)
            x_BSD = x_BSD + self.mlp(self.norm2(x_BSD))
            return x_BSD
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations_BSM.chunk(6, dim=-1)
        x_BSD = x_BSD + gate1 * self.attn(_modulate(self.norm1(x_BSD), shift1, scale1), attend)
        x_BSD = x_BSD + gate2 * self.mlp(_modulate(self.norm2(x_BSD), shift2, scale2))
        return x_BSD


@final
class FinalNorm(nn.Module):
    """The layer norm before the head. If adaptive, it has no weights of its own."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        adaptive = config.conditioning == "adaln"
        self.norm_final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, elementwise_affine=not adaptive)
        if adaptive:
            self.adaLN_modulation = _modulation(config.hidden_size, 2)

    def modulations(self, activated_BSD: Tensor) -> Tensor:
        """Scale, then shift (in blocks it is shift, then scale), from the SiLU of the conditioning vectors: (B, S, 2·D)."""
        out_BSM: Tensor = self.adaLN_modulation[1](activated_BSD)
        return out_BSM

    def forward(self, x_BSD: Tensor, modulations_BSM: Tensor | None) -> Tensor:
        normed_BSD: Tensor = self.norm_final(x_BSD)
        if modulations_BSM is None:
            return normed_BSD
        scale_BSD, shift_BSD = modulations_BSM.chunk(2, dim=-1)
        return _modulate(normed_BSD, shift_BSD, scale_BSD)


def _modulation(width: int, parts: int) -> nn.Sequential:
    # The SiLU takes index 0, as in the released names.
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulate(x_BSD: Tensor, shift_BSD: Tensor, scale_BSD: Tensor) -> Tensor:
    return x_BSD * (1 + scale_BSD) + shift_BSD
