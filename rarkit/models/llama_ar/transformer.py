"""The layers of ``llama_ar``, named as in transformers' Llama.

Shape letters: B batch, S entries of the sequence, D width, N heads, K head width, P places of dropout in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rarkit.attention.seeded_masks import OUTPUT, PROJECTION
from rarkit.models.dropout import dropout
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.rotary import Rotary

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of new entries to all entries they may see: (q_BNSK, k_BNSK, v_BNSK), already rotated, to (B, N, S, K)."""


@final
class Attention(nn.Module):
    """Projections and rotary positions around attention; the caller's ``attend`` applies the mask or cache."""

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        width = config.hidden_size
        self.q_proj, self.k_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.v_proj, self.o_proj = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, rotary: Rotary, attend: Attend, keys_PB: Tensor | None = None) -> Tensor:
        projections = self.q_proj, self.k_proj, self.v_proj
        q_BNSK, k_BNSK, v_BNSK = (project(x_BSD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for project in projections)
        read_BNSK = attend(rotary.turn(q_BNSK), rotary.turn(k_BNSK), v_BNSK)
        return dropout(self, self.o_proj(read_BNSK.transpose(1, 2).flatten(2)), keys_PB, PROJECTION)


@final
class MLP(nn.Module):
    """The SwiGLU MLP."""

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.mlp_hidden_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.mlp_hidden_size, bias=False)
        self.down_proj = nn.Linear(config.mlp_hidden_size, config.hidden_size, bias=False)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, keys_PB: Tensor | None = None) -> Tensor:
        return dropout(self, self.down_proj(functional.silu(self.gate_proj(x_BSD)) * self.up_proj(x_BSD)), keys_PB, OUTPUT)


@final
class Block(nn.Module):
    """A transformer block with norms before attention and MLP."""

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_BSD: Tensor, rotary: Rotary, attend: Attend, keys_PB: Tensor | None = None) -> Tensor:
        x_BSD = x_BSD + self.self_attn(self.input_layernorm(x_BSD), rotary, attend, keys_PB)
        x_BSD = x_BSD + self.mlp(self.post_attention_layernorm(x_BSD), keys_PB)
        return x_BSD


@final
class Transformer(nn.Module):
    """Embeddings, blocks and the last norm: the part under ``model.`` in transformers' Llama."""

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__()
        # Pass the tensor: if nn.Embedding draws the weights on the meta device, torch loads its compiler, which takes seconds.
        self.embed_tokens = nn.Embedding(
            config.vocabulary_size, config.hidden_size, _weight=torch.empty(config.vocabulary_size, config.hidden_size)
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        ids_BS: Tensor,
        rotary: Rotary,
        attends: Sequence[Attend],
        keys: Tensor | None = None,
        *,
        checkpointing: int = 0,
    ) -> Tensor:
        """The last hidden states (B, S, D) of entries with these rows of the embedding table.

        Args:
            ids_BS: (B, S) int64, the rows.
            rotary: the entries' positions.
            attends: attention of each block.
            keys: (blocks, P, B) int64, the keys of dropout masks; None draws these from torch's generator.
            checkpointing: of every block (1) or every n-th (n), save only the input; 0 for none.
        """
        x_BSD = self.embed_tokens(ids_BS)
        for layer, (block, attend) in enumerate(zip(self.layers, attends, strict=True)):
            arguments = x_BSD, rotary, attend, None if keys is None else keys[layer]
            again = checkpointing and layer % checkpointing == 0
            x_BSD = checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
        out_BSD: Tensor = self.norm(x_BSD)
        return out_BSD
