"""A decoder-only transformer over image tokens, like LlamaGen (arXiv 2406.06525).

Shape letters: B batch, L tokens of an image, which is also the number of entries (the class, then x_1 … x_{L−1}), D width, V
codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction, attend
from rarkit.attention.sdpa import SDPA
from rarkit.errors import CapabilityError, UserError
from rarkit.models.image_model import ImageModel
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.decoding import Prepared
from rarkit.models.llama_ar.rotary import rotary
from rarkit.models.llama_ar.transformer import Transformer
from rarkit.registry.inputs import SEEDS, whole

DEVIATION = 0.02
"""Standard deviation of initial weights."""


@final
class LlamaAR(ImageModel):
    """A Llama over the codes of an image, with the class as the first token and rotary positions in two dimensions.

    Its state dict has the names and shapes of transformers' ``LlamaForCausalLM``: the rows of ``model.embed_tokens`` are the V
    codes, the classes and "no class"; ``lm_head`` has only the codes, because classes are never predicted.
    """

    config: LlamaARConfig

    def __init__(self, config: LlamaARConfig, attention: AttentionFunction | None = None, *, seed: int | None = 0) -> None:
        """A new model on torch's default device.

        Args:
            config: the model's configuration.
            attention: the kernel; None means fused attention.
            seed: the seed of the initial weights, which are the same on every device; None leaves them uninitialised, to be loaded.
        """
        # Built on the meta device first: torch's own initialisation takes time and draws from the global generator.
        device = torch.get_default_device()
        with torch.device("meta"):
            super().__init__()
            self.config = config
            self.attention = SDPA().build() if attention is None else attention
            self.model = Transformer(config)
            self.lm_head = nn.Linear(config.hidden_size, config.codebook_size, bias=False)
        if device.type != "meta":
            self.to_empty(device=device)
            if seed is not None:
                self.initialise(seed)

    @property
    def repeated(self) -> Sequence[nn.Module]:
        return [*self.model.layers]

    def forward(
        self,
        tokens_BL: Tensor,
        labels_B: Tensor,
        orders_BL: Tensor,
        *,
        dropped_B: Tensor | None = None,
        mask_seeds_B: Tensor | None = None,
        checkpointing: int = 0,
    ) -> Tensor:
        """See ``ImageModel.forward``."""
        config = self.config
        class_ids_B = config.codebook_size + labels_B
        if dropped_B is not None:
            class_ids_B = class_ids_B.masked_fill(dropped_B, config.vocabulary_size - 1)
        visited_BL = tokens_BL.gather(1, orders_BL.expand_as(tokens_BL))
        ids_BL = torch.cat([class_ids_B[:, None], visited_BL[:, :-1]], dim=1)
        attends = [
            partial(attend, self.attention, causal=True, dropout=self.weight_dropout(config.attention_dropout, mask_seeds_B, layer))
            for layer in range(config.depth)
        ]
        keys = self.dropout_keys(config.dropout, config.depth, mask_seeds_B)
        x_BLD = self.model(ids_BL, rotary(config, orders_BL), attends, keys, checkpointing=checkpointing)
        logits_BLV: Tensor = self.lm_head(x_BLD)
        return logits_BLV

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draws new weights: normal with σ = 0.02; 1 for norms.

        They are drawn on the CPU in the order of the state dict, so that a seed gives the same model on every device.
        """
        generator = torch.Generator().manual_seed(whole("the seed", seed, *SEEDS))
        for weight in self.parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                weight.copy_(torch.empty(weight.shape, device="cpu").normal_(0.0, DEVIATION, generator=generator))

    def prepare(self, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None) -> Prepared:
        """The model for decoding with a KV cache, in its own dtype.

        Raises:
            UserError: int8 weights or a float8 cache are requested, which this family does not support.
            CapabilityError: compiled kernels are requested, which it does not support either.
        """
        if int8:
            raise UserError("llama_ar has no int8 weights: set sample.precision to 'bfloat16' or 'float32'")
        if float8_cache:
            raise UserError("llama_ar has no float8 cache: remove sample.kv_cache, or set it to 'same'")
        if compiled:
            raise CapabilityError("llama_ar has no compiled kernels: remove compiled=True")
        return Prepared(self, self.config, self.model, self.lm_head, self.attention)
