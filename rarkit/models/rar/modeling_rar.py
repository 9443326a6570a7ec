"""RAR (arXiv 2411.00776) with merged positions as a causal language model for transformers, along one scan order.

A sequence is cls, the class and the L codes of an image in visiting order. Ids are rows of the embedding table: the V codes, cls
(V), the classes (V + 1 …) and "no class" (the last). Logits are over the codes only, because nothing else is ever predicted.

Shape letters: B batch, S new ids, T entries seen, D width, N heads, K head width, V codebook size, M = 6·D or 2·D modulations.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from rarkit.models.image_generation import CACHE, ImageGeneration, refuse_padding

PREFIX = 2
"""Ids before the first code: cls and the class."""
SPARE_STEPS = 100
"""Rows of the released table of step embeddings beyond the codes; 1 is used (cls)."""


@final
class RARConfig(PretrainedConfig):
    """Sizes, under rarkit's names."""

    model_type = "rarkit_rar"
    attribute_map = {  # noqa: RUF012
        "num_hidden_layers": "depth",
        "num_attention_heads": "num_heads",
        "intermediate_size": "mlp_hidden_size",
    }


@final
class Attention(nn.Module):
    """Causal attention with per-head layer norms of queries and keys."""

    def __init__(self, config: RARConfig, layer: int) -> None:
        super().__init__()
        width, head = config.hidden_size, config.hidden_size // config.num_heads
        self.num_heads, self.layer, self.dropped = config.num_heads, layer, config.attention_dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(head, eps=config.layer_norm_eps)
        self.k_norm = nn.LayerNorm(head, eps=config.layer_norm_eps)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(config.dropout)

    def forward(self, x_BSD: Tensor, entries_S: Tensor, cache: Any, *, sees_all: bool) -> Tensor:
        """``sees_all``: the queries see all keys."""
        q_BSNK, k_BSNK, v_BSNK = self.qkv(x_BSD).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        q_BNSK, k_BNTK, v_BNTK = (
            self.q_norm(q_BSNK).to(v_BSNK.dtype).transpose(1, 2),
            self.k_norm(k_BSNK).to(v_BSNK.dtype).transpose(1, 2),
            v_BSNK.transpose(1, 2),
        )
        if cache is not None:
            # Older static caches do not count by themselves.
            k_BNTK, v_BNTK = cache.update(k_BNTK, v_BNTK, self.layer, {"cache_position": entries_S})
        keys, causal = k_BNTK.shape[2], q_BNSK.shape[2] == k_BNTK.shape[2]
        # A static cache has keys that are not filled yet.
        mask_ST = None if causal or sees_all else torch.arange(keys, device=entries_S.device) <= entries_S[:, None]
        dropped = self.dropped if self.training else 0.0
        read_BNSK = functional.scaled_dot_product_attention(q_BNSK, k_BNTK, v_BNTK, mask_ST, dropped, is_causal=causal)
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
    """A transformer block. Its norms are adaptive (AdaLN-zero) if ``conditioning`` is "adaln"."""

    def __init__(self, config: RARConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Attention(config, layer)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        if config.conditioning == "adaln":
            self.adaLN_modulation = modulation(config.hidden_size, 6)

    def forward(self, x_BSD: Tensor, conditioning_BSD: Tensor | None, entries_S: Tensor, cache: Any, *, sees_all: bool) -> Tensor:
        if conditioning_BSD is None:
            x_BSD = x_BSD + self.attn(self.norm1(x_BSD), entries_S, cache, sees_all=sees_all)
            x_BSD = x_BSD + self.mlp(self.norm2(x_BSD))
            return x_BSD
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(conditioning_BSD).chunk(6, dim=-1)
        x_BSD = x_BSD + gate1 * self.attn(self.norm1(x_BSD) * (1 + scale1) + shift1, entries_S, cache, sees_all=sees_all)
        x_BSD = x_BSD + gate2 * self.mlp(self.norm2(x_BSD) * (1 + scale2) + shift2)
        return x_BSD


@final
class FinalNorm(nn.Module):
    """The layer norm before the head. If adaptive, it has no weights of its own; scale comes before shift."""

    def __init__(self, config: RARConfig) -> None:
        super().__init__()
        adaptive = config.conditioning == "adaln"
        self.norm_final = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, elementwise_affine=not adaptive)
        if adaptive:
            self.adaLN_modulation = modulation(config.hidden_size, 2)

    def forward(self, x_BSD: Tensor, conditioning_BSD: Tensor | None) -> Tensor:
        normed_BSD: Tensor = self.norm_final(x_BSD)
        if conditioning_BSD is None:
            return normed_BSD
        scale_BSD, shift_BSD = self.adaLN_modulation(conditioning_BSD).chunk(2, dim=-1)
        out_BSD: Tensor = normed_BSD * (1 + scale_BSD) + shift_BSD
        return out_BSD


def modulation(width: int, parts: int) -> nn.Sequential:
    """SiLU and a linear layer."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


@final
class RARForCausalLM(ImageGeneration, PreTrainedModel, GenerationMixin):
    """RAR along the scan order that its positions were merged for. The weights have rarkit's names."""

    config_class = RARConfig
    main_input_name = "input_ids"
    _no_split_modules = ("Block",)
    _supports_sdpa = True
    _supports_cache_class = True
    _supports_static_cache = True
    _can_compile_fullgraph = True

    def __init__(self, config: RARConfig) -> None:
        super().__init__(config)
        asked = config._attn_implementation
        if asked not in (None, "sdpa"):
            raise ValueError(f"RAR has PyTorch's attention (sdpa), not {asked}: leave out attn_implementation")
        width = config.hidden_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.scan_pos_embed = nn.Parameter(torch.zeros(1, config.seq_len + 1, width))
        if config.conditioning == "adaln":
            self.timesteps_embeddings = nn.Parameter(torch.zeros(1, config.seq_len + SPARE_STEPS, width))
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.depth))
        self.embeddings = nn.Embedding(config.embedding_rows, width)
        self.adaln_before_head = FinalNorm(config)
        self.lm_head = nn.Linear(width, config.codebook_size)
        self.register_buffer("scan_order", torch.zeros(config.seq_len, dtype=torch.int64))
        self.post_init()

    @property
    def scan_order_L(self) -> Tensor:
        order_L = self.scan_order
        assert isinstance(order_L, Tensor)
        return order_L

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        class_ids: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **unsupported: Any,
    ) -> CausalLMOutputWithPast:
        """Predictions of the next codes.

        Args:
            input_ids: (B, S) int64; from the start of the sequence, or what follows on what the cache holds.
            attention_mask: all ones, or None.
            cache, past_key_values: what was seen before, under either name. Positions follow from its length.
            class_ids: (B,) int64, the ids of the classes, on which every step depends. The start of a sequence has them; after that
                the cache remembers those that it was started with. ``generate`` passes them.
            labels: (B, S) int64, such as ``input_ids`` themselves, for the loss; ids that are not codes do not count.
            use_cache: whether to return a cache; by default only without labels.
            logits_to_keep: compute the logits of so many last ids only; 0 means all.

        Returns:
            logits (B, S, V). Those at cls are without meaning: what follows it is the class.
        """
        wanted = [name for name, value in unsupported.items() if value is not None and value is not False and name != "return_dict"]
        if wanted:
            raise ValueError(f"RAR takes no {', '.join(wanted)}: leave it out")
        cache = past_key_values if cache is None else cache
        refuse_padding(attention_mask)
        if cache is None and (labels is None if use_cache is None else use_cache):
            cache = DynamicCache()
        seen = 0 if cache is None else cache.get_seq_length()
        if class_ids is None:
            class_ids = self._classes(input_ids, cache, int(seen))
        count, length = input_ids.shape[1], self.config.seq_len
        if isinstance(seen, int) and seen + count > length + PREFIX:
            raise ValueError(f"the sequence would have {seen + count} ids; it has {PREFIX} and then {length} codes")
        # The last code predicts nothing and has no position.
        entries_S = (torch.arange(count, device=input_ids.device) + seen).clamp(max=length)
        sees_all = count == 1 and isinstance(seen, int)
        embedded_BSD = torch.where((input_ids == self.config.codebook_size)[..., None], self.cls_token, self.embeddings(input_ids))
        x_BSD = embedded_BSD + self.scan_pos_embed[0][entries_S]
        conditioning_BSD = None
        if self.config.conditioning == "adaln":
            conditioning_BSD = self.embeddings(class_ids)[:, None] + self.timesteps_embeddings[0][entries_S]
        for block in self.blocks:
            x_BSD = block(x_BSD, conditioning_BSD, entries_S, cache, sees_all=sees_all)
        if logits_to_keep:
            x_BSD = x_BSD[:, -logits_to_keep:]
            conditioning_BSD = None if conditioning_BSD is None else conditioning_BSD[:, -logits_to_keep:]
        logits_BSV = self.lm_head(self.adaln_before_head(x_BSD, conditioning_BSD))
        return CausalLMOutputWithPast(loss=self.next_code_loss(logits_BSV, labels), logits=logits_BSV, **{CACHE: cache})

    def _classes(self, ids_BS: Tensor, cache: Any, seen: int) -> Tensor:
        """The classes of sequences: their second ids, or what the cache remembers."""
        if seen == 0:
            if ids_BS.shape[1] < PREFIX:
                raise ValueError("a sequence starts with cls and the class: begin with model.prompt(labels)")
            if cache is not None:
                cache.class_ids = ids_BS[:, 1]
            return ids_BS[:, 1]
        remembered_B: Tensor | None = getattr(cache, "class_ids", None)
        if remembered_B is None or len(remembered_B) != len(ids_BS):
            raise ValueError("the cache was not started with these sequences: pass class_ids, the second id of each")
        return remembered_B

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """What ``forward`` takes at the next step of ``generate``."""
        cache = kwargs.get(CACHE)
        count = kwargs.get("next_sequence_length")
        seen = input_ids.shape[1] - count if count else 0 if cache is None else int(cache.get_seq_length())
        kept: dict[str, Any] = {name: kwargs[name] for name in ("attention_mask", "use_cache", "logits_to_keep") if name in kwargs}
        return {"input_ids": input_ids[:, seen:].contiguous(), "class_ids": input_ids[:, 1], CACHE: cache, **kept}
