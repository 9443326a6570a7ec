"""Runs one entry of the sequence through the model, with a preallocated KV cache.

Shape letters: R rows, S = L + 1 entries of the sequence (cls, class, x_1 … x_{L−1}), T of them in the cache, D width,
N heads, K head width, V codebook size; M modulations.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.attention.base import attend
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.decoding.modulations import Modulations
from rarkit.models.rar.decoding.weights import BlockWeights, DecodingWeights
from rarkit.models.rar.sampling_costs import WIDENED_BYTES

Read = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of an entry to all entries up to it, given the block's number and the entry's q_RNK, k_RNK, v_RNK: (R, N, K)."""

ENTRIES_MORE = 32
"""Number of entries beyond the filled ones for which the dense cache is laid out."""


class Steps(ABC):
    """Processes the entries of a batch one at a time."""

    @abstractmethod
    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        """Allocates memory for batches of ``rows`` rows."""

    @abstractmethod
    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        """Starts a new batch.

        Args:
            class_ids_R: (R,) int64, rows of the embedding table.
            order_L: (L,) int64, the raster index visited at each step.
        """

    @abstractmethod
    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        """Logits (R, V) after this entry, given its embeddings ``x_RD`` without positions. R may shrink to the first rows.

        Entries must come in order: 0 (cls), 1 (class), 2 (x_1), … The next call may overwrite the result.
        """


def cache_shape(config: RARConfig, rows: int) -> tuple[int, ...]:
    """The shape of the KV cache, (depth, 2, R, N, S, K): keys, then values, of each block."""
    return config.depth, 2, rows, config.num_heads, config.seq_len + 1, config.head_size


def narrowed(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts to the cache's dtype; values beyond the range of float8 become its largest number, not NaN."""
    if values.dtype == dtype:
        return values
    most = torch.finfo(dtype).max
    return values.clamp(-most, most).to(dtype)


def one_step(weights: DecodingWeights, x_RD: Tensor, modulations: Sequence[Tensor], read: Read) -> Tensor:
    """Logits (R, V) after an entry, given its input (R, D) with positions and the modulations of the blocks and final norm."""
    x_RD = x_RD.to(weights.rows_dtype)
    for layer, block in enumerate(weights.blocks):
        x_RD = _block(weights, layer, block, x_RD, modulations[layer], read)
    scale_RD, shift_RD = modulations[-1].chunk(2, dim=-1)
    return weights.head(_modulated(weights, x_RD, shift_RD, scale_RD))


def _block(weights: DecodingWeights, layer: int, block: BlockWeights, x_RD: Tensor, modulations_RM: Tensor, read: Read) -> Tensor:
    shift1, scale1, gate1, shift2, scale2, gate2 = modulations_RM.chunk(6, dim=-1)
    config = weights.model.config
    qkv_R3NK = block.qkv(_modulated(weights, x_RD, shift1, scale1)).view(-1, 3, config.num_heads, config.head_size)
    # Normalises the values too, unused: that is cheaper than copying queries and keys out from between them.
    normed_R2NK = functional.layer_norm(qkv_R3NK, (config.head_size,), eps=config.layer_norm_eps)[:, :2]
    q_RNK, k_RNK = block.qk_bias_2NK.addcmul(normed_R2NK, block.qk_weight_2NK).unbind(1)
    x_RD = x_RD.addcmul(gate1, block.proj(read(layer, q_RNK, k_RNK, qkv_R3NK[:, 2]).flatten(1)))
    return x_RD.addcmul(gate2, block.fc2(block.fc1_gelu(_modulated(weights, x_RD, shift2, scale2))))


def _modulated(weights: DecodingWeights, x_RD: Tensor, shift_RD: Tensor, scale_RD: Tensor) -> Tensor:
    config = weights.model.config
    # The norm's own weights are already folded into shift and scale.
    return shift_RD.addcmul(functional.layer_norm(x_RD, (config.hidden_size,), eps=config.layer_norm_eps), scale_RD)


class EagerSteps(Steps, ABC):
    """Runs each entry eagerly, operation by operation."""

    spare_blocks: ClassVar[int] = 0

    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        self.weights, self.model = weights, weights.model
        self.modulations: Modulations | None = None
        depth, *block = cache_shape(self.model.config, rows)
        # Zeros: masked entries have weight 0, but 0 times uninitialised memory can be NaN.
        shape = (depth + self.spare_blocks, *block)
        self.kv = torch.zeros(shape, dtype=weights.cache_dtype, device=self.model.cls_token.device)

    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        classes = len(set(class_ids_R.tolist())) if self.model.has_modulations else 1
        # Reuse the memory of the previous batch if it fits: new memory is slow until all of it has been touched once.
        if self.modulations is None or self.modulations.table_EUM.shape[1] != classes:
            self.modulations = Modulations(self.weights, classes)
        self.modulations.begin(class_ids_R)
        self.positions_SD = self.model.positions(order_L)


class PyTorchSteps(EagerSteps):
    """Decodes with PyTorch's operations; ``read`` determines the layout of the cache and the attention to it."""

    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        assert self.modulations is not None
        self.modulations.reach(entry)
        table_UM = self.modulations.table_EUM[self.modulations.slot(entry)]
        modulations = self.modulations.at(table_UM, self.modulations.row_R[: len(x_RD)])
        return one_step(self.weights, x_RD + self.positions_SD[entry], modulations, partial(self.read, entry))

    @abstractmethod
    def read(self, entry: int, layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
        """``Read`` for this entry."""


@final
class SlicedSteps(PyTorchSteps):
    """Uses the model's own attention, on slices of the cache of exactly the filled length."""

    def read(self, entry: int, layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
        """Attention on a slice of the cache."""
        kv_2RNSK = self.kv[layer, :, : len(q_RNK)]
        kv_2RNSK[0, :, :, entry], kv_2RNSK[1, :, :, entry] = (narrowed(new, self.kv.dtype) for new in (k_RNK, v_RNK))
        keys_RNTK, values_RNTK = kv_2RNSK[:, :, :, : entry + 1].to(q_RNK.dtype)
        read_RN1K: Tensor = attend(self.model.attention, q_RNK[:, :, None], keys_RNTK, values_RNTK, causal=False)
        return read_RN1K[:, :, 0]


@final
class DenseSteps(PyTorchSteps):
    """For CPUs: keeps the filled part of the cache dense in memory, where plain products read it.

    A slice of the full cache has gaps of empty entries between heads. They defeat the CPU's prefetching and halve its bandwidth.
    So each block's cache is laid out for only a few more entries than are filled; when they are used up, it is copied to the
    previous block's memory in a longer layout. Entries that are not filled yet are masked.
    """

    spare_blocks = 1

    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        super().begin(class_ids_R, order_L)
        self.laid_out = 0
        *self.memory, self.spare = self.kv

    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        if entry == self.laid_out:
            self._lay_out(min(entry + ENTRIES_MORE, self.model.config.seq_len + 1))
            self.mask_11S = torch.full((1, 1, self.laid_out), float("-inf"), dtype=self.weights.rows_dtype)
        self.mask_11S[..., : entry + 1] = 0
        return super().advance(x_RD, entry)

    def read(self, entry: int, layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
        """Attention by matrix products over the whole layout."""
        kv_2RNSK = self._dense(self.memory[layer], self.laid_out)[:, : len(q_RNK)]
        for cached_RNSK, new_RNK in zip(kv_2RNSK, (k_RNK, v_RNK), strict=True):
            cached_RNSK[:, :, entry] = narrowed(new_RNK, self.kv.dtype)
        at_once = len(q_RNK)
        if self.kv.dtype != q_RNK.dtype:
            at_once = max(1, WIDENED_BYTES * at_once // (kv_2RNSK.numel() * q_RNK.element_size()))
        parts = zip(torch.split(q_RNK, at_once), torch.split(kv_2RNSK, at_once, dim=1), strict=True)
        return torch.cat([self._attend(queries, cached.to(queries.dtype)) for queries, cached in parts])

    def _attend(self, q_RNK: Tensor, kv_2RNSK: Tensor) -> Tensor:
        keys_RNSK, values_RNSK = kv_2RNSK
        queries, keys, values = q_RNK.flatten(0, 1)[:, None], keys_RNSK.flatten(0, 1), values_RNSK.flatten(0, 1)
        scores = torch.baddbmm(self.mask_11S, queries, keys.transpose(1, 2), alpha=q_RNK.shape[-1] ** -0.5)
        return torch.bmm(scores.softmax(-1), values).view_as(q_RNK)

    def _lay_out(self, entries: int) -> None:
        filled, self.laid_out = self.laid_out, entries
        for layer, memory in enumerate(self.memory if filled else ()):
            self._dense(self.spare, entries)[:, :, :, :filled] = self._dense(memory, filled)
            self.memory[layer], self.spare = self.spare, memory

    @staticmethod
    def _dense(memory_2RNSK: Tensor, entries: int) -> Tensor:
        """A view (2, R, N, ``entries``, K) of the start of a block's memory."""
        two, rows, heads, _, width = memory_2RNSK.shape
        shape = (two, rows, heads, entries, width)
        return memory_2RNSK.view(-1)[: math.prod(shape)].view(shape)
