"""Decoding with a KV cache, with both branches of guidance in one batch.

Shape letters: B batch, R rows (the batch, then again without classes), L tokens of an image, N heads, K head width, T
filled entries of the cache, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction, attend
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.rotary import rotary
from rarkit.models.llama_ar.transformer import Transformer
from rarkit.sampling.decoder import Decodable, Decoder, guide, guided_steps


@final
class Prepared(Decodable):
    """The result of ``LlamaAR.prepare``: the model itself, decoded with a KV cache."""

    def __init__(
        self, network: nn.Module, config: LlamaARConfig, transformer: Transformer, head: nn.Linear, attention: AttentionFunction
    ) -> None:
        """``transformer`` and ``head`` are submodules of ``network``."""
        self._network, self._config = network, config
        self.transformer, self.head, self.attention = transformer, head, attention

    @property
    def network(self) -> nn.Module:
        return self._network

    @property
    def sizes(self) -> LlamaARConfig:
        return self._config

    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        return CachedDecoder(self, labels_B, order_L, scales)


@final
class CachedDecoder(Decoder):
    """Adds one entry per step; drops the unconditional branch once no later step needs it."""

    def __init__(self, prepared: Prepared, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> None:
        """The arguments after ``prepared`` are those of ``Decodable.decoder``."""
        self.prepared, self.scales, self.batch = prepared, scales, len(labels_B)
        config = prepared.sizes
        self.guided_steps = guided_steps(scales)
        class_ids_R = config.codebook_size + labels_B
        if self.guided_steps:
            class_ids_R = torch.cat([class_ids_R, torch.full_like(class_ids_R, config.vocabulary_size - 1)])
        self.class_ids_R, self.rotary = class_ids_R, rotary(config, order_L)
        # Keys, then values, of each block.
        shape = (config.depth, 2, len(class_ids_R), config.num_heads, config.seq_len, config.head_size)
        self.kv = torch.empty(shape, dtype=prepared.head.weight.dtype, device=labels_B.device)

    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        guided = step < self.guided_steps
        ids_R = self.class_ids_R
        if previous_B is not None:
            ids_R = previous_B.repeat(2) if guided else previous_B
        attends = [partial(self._read, step, layer) for layer in range(len(self.kv))]
        x_R1D = self.prepared.transformer(ids_R[:, None], self.rotary.at(step), attends)
        logits_RV: Tensor = self.prepared.head(x_R1D[:, 0]).float()
        if not guided:
            return logits_RV
        return guide(logits_RV[: self.batch], logits_RV[self.batch :], self.scales[step])

    def _read(self, entry: int, layer: int, q_RN1K: Tensor, k_RN1K: Tensor, v_RN1K: Tensor) -> Tensor:
        kv_2RNSK = self.kv[layer, :, : len(q_RN1K)]
        kv_2RNSK[0, :, :, entry : entry + 1], kv_2RNSK[1, :, :, entry : entry + 1] = k_RN1K, v_RN1K
        keys_RNTK, values_RNTK = kv_2RNSK[:, :, :, : entry + 1]
        return attend(self.prepared.attention, q_RN1K, keys_RNTK, values_RNTK, causal=False)
