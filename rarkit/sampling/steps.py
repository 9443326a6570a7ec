"""One entry of the sequence through the whole model, with a KV cache allocated once.

Shape letters: R rows of the batch, S = L + 1 entries of the sequence (cls, class, x_1 … x_{L−1}), T of them in the cache, D width,
N heads, K head width, V codebook size; M modulations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

from torch import Tensor
from torch.nn import functional

from rarkit.models.config import RARConfig
from rarkit.sampling.modulations import Modulations
from rarkit.sampling.prepared import Prepared, PreparedBlock

ModulationsOf = Callable[[int], Tensor]
"""A block's number (−1: the final norm's) to the folded modulations of this entry, (R, M)."""
Read = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""A block's number, q_RNK, k_RNK and v_RNK of this entry to what it reads from all entries so far, itself included: (R, N, K)."""


class Steps(ABC):
    """The entries of a batch, one after the other."""

    @abstractmethod
    def __init__(self, prepared: Prepared, rows: int) -> None:
        """Allocates what batches of that many rows need."""

    @abstractmethod
    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        """A new batch.

        Args:
            class_ids_R: (R,) int64, rows of the embedding table.
            order_L: (L,) int64, the raster index visited at each step.
        """

    @abstractmethod
    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        """Logits (R, V) after this entry, whose embeddings are ``x_RD`` (positions not added); the first R rows, where R shrinks.

        Entries come in turn: 0 (cls), 1 (class), 2 (x_1), … The result may be overwritten by the next call.
        """


def cache_shape(config: RARConfig, rows: int) -> tuple[int, ...]:
    """(depth, 2, R, N, S, K): keys, then values, of each block."""
    return (config.depth, 2, rows, config.num_heads, config.seq_len + 1, config.head_size)


def one_step(prepared: Prepared, x_RD: Tensor, modulations_of: ModulationsOf, read: Read) -> Tensor:
    """(R, D) of one entry, positions added, to the logits (R, V) after it."""
    for layer, block in enumerate(prepared.blocks):
        x_RD = _block(prepared, layer, block, x_RD, modulations_of(layer), read)
    scale_RD, shift_RD = modulations_of(-1).chunk(2, dim=-1)
    return prepared.head(_modulated(prepared, x_RD, shift_RD, scale_RD))


def _block(prepared: Prepared, layer: int, block: PreparedBlock, x_RD: Tensor, modulations_RM: Tensor, read: Read) -> Tensor:
    shift1, scale1, gate1, shift2, scale2, gate2 = modulations_RM.chunk(6, dim=-1)
    config = prepared.model.config
    qkv_R3NK = block.qkv(_modulated(prepared, x_RD, shift1, scale1)).view(-1, 3, config.num_heads, config.head_size)
    normed_R2NK = functional.layer_norm(qkv_R3NK[:, :2], (config.head_size,), eps=config.layer_norm_eps)
    q_RNK, k_RNK = block.qk_bias_2NK.addcmul(normed_R2NK, block.qk_weight_2NK).unbind(1)
    x_RD = x_RD.addcmul(gate1, block.proj(read(layer, q_RNK, k_RNK, qkv_R3NK[:, 2]).flatten(1)))
    return x_RD.addcmul(gate2, block.fc2(block.fc1_gelu(_modulated(prepared, x_RD, shift2, scale2))))


def _modulated(prepared: Prepared, x_RD: Tensor, shift_RD: Tensor, scale_RD: Tensor) -> Tensor:
    config = prepared.model.config
    # The norm's own weights are folded into shift and scale.
    return shift_RD.addcmul(functional.layer_norm(x_RD, (config.hidden_size,), eps=config.layer_norm_eps), scale_RD)


@final
class SlicedSteps(Steps):
    """Tables and cache are read through slices of exactly the filled length, with the model's own attention."""

    def __init__(self, prepared: Prepared, rows: int) -> None:
        self.prepared, self.model = prepared, prepared.model
        self.kv = self.model.cls_token.new_empty(cache_shape(self.model.config, rows))

    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        self.modulations = Modulations(self.model, len(set(class_ids_R.tolist())))
        self.modulations.begin(class_ids_R)
        self.positions_SD = self.model.positions(order_L)

    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        rows = len(x_RD)
        self.modulations.reach(entry)

        def read(layer: int, q_RNK: Tensor, k_RNK: Tensor, v_RNK: Tensor) -> Tensor:
            keys_RNSK, values_RNSK = self.kv[layer, 0, :rows], self.kv[layer, 1, :rows]
            keys_RNSK[:, :, entry] = k_RNK
            values_RNSK[:, :, entry] = v_RNK
            filled = slice(0, entry + 1)
            read_RN1K = self.model.attention(q_RNK[:, :, None], keys_RNSK[:, :, filled], values_RNSK[:, :, filled], causal=False)
            return read_RN1K[:, :, 0]

        return one_step(
            self.prepared, x_RD + self.positions_SD[entry], lambda layer: self.modulations.rows(layer, entry, rows), read
        )
