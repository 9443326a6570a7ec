"""Dropout masks from seeds: functions of a sample's seed, the layer and the place alone.

So they are the same in any batch, at any world size, on any device, compiled or not. Torch's generators give others for another
batch, and on a CPU take ten times as long.

The numbers are those of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), seeded
with a sample's key at the place: any of them is computed from its number alone. Each gives four draws of 16 bits, so probabilities
are multiples of 2⁻¹⁶.

Shape letters: B batch, N heads, R rows and C columns of a mask, W numbers of a row.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

ATTENTION, PROJECTION, HIDDEN, OUTPUT = range(4)
"""Places of dropout in a layer: attention weights, the output of attention, the MLP's hidden layer, its output."""
PLACES = 4
# As signed numbers, because torch computes with those.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_ROUNDS = (30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64)
_LAST = 31
_DRAWS = 4
_LEVELS = 2**16


def mask_keys(seeds_B: Tensor, layer: int, place: int) -> Tensor:
    """The key of each sample's masks at a place: (B,) int64.

    Args:
        seeds_B: (B,) int64, one seed per sample.
        layer: the layer's number, from 0.
        place: one of the places above.
    """
    return _mixed(_mixed(seeds_B) + (PLACES * layer + place + 1))


def layer_keys(seeds_B: Tensor, layers: int) -> Tensor:
    """``mask_keys`` of all layers and places: (layers, places, B) int64."""
    numbers = torch.arange(1, PLACES * layers + 1, device=seeds_B.device)
    return _mixed(_mixed(seeds_B) + numbers[:, None]).view(layers, PLACES, -1)


def level(probability: float) -> int:
    """The number of 65,536 equally likely draws that are dropped: at least one, and not all."""
    return min(max(round(probability * _LEVELS), 1), _LEVELS - 1)


def kept_scale(probability: float) -> float:
    """What the others are multiplied by, so that the mean stays."""
    return _LEVELS / (_LEVELS - level(probability))


def draws(keys_B: Tensor, rows: int | tuple[int, int], columns: int, part: slice = slice(None), first: int | None = None) -> Tensor:
    """Uniform draws (B, R, C) int16, or (B, N, R, C) if ``rows`` is (N, R). May be a view of a larger tensor.

    Args:
        keys_B: the samples' keys.
        rows: R, or N and R.
        columns: C, the row's length, which decides the draws.
        part: which of the R rows to draw.
        first: how many draws of a row; None for all.
    """
    shape = rows if isinstance(rows, tuple) else (1, rows)
    kept_in_memory = keys_B.device.type == "cpu" and not torch.compiler.is_compiling()
    counters_NRW = (_counters if kept_in_memory else _new_counters)(*shape, -(-columns // _DRAWS), keys_B.device)
    first = columns if first is None else first
    numbers_BNRW = _mixed_in_place(keys_B[:, None, None, None] + counters_NRW[:, part, : -(-first // _DRAWS)])
    drawn_BNRC = numbers_BNRW.view(torch.int16)[..., :first]
    return drawn_BNRC if isinstance(rows, tuple) else drawn_BNRC[:, 0]


def kept(keys_B: Tensor, rows: int, columns: int, probability: float) -> Tensor:
    """A mask (B, R, C) bool, false with the probability."""
    return draws(keys_B, rows, columns) >= threshold(probability)


def threshold(probability: float) -> int:
    """Draws below it are dropped."""
    return level(probability) - _LEVELS // 2


def dropped_out(values: Tensor, keys_B: Tensor, probability: float) -> Tensor:
    """Dropout of (B, …, C) in any dtype: 0 with the probability, else scaled so that the mean stays."""
    mask = kept(keys_B, values[0, ..., 0].numel(), values.shape[-1], probability).view_as(values)
    return values * mask * kept_scale(probability)


def _mixed(numbers: Tensor) -> Tensor:
    return _mixed_in_place(numbers.clone())


def _mixed_in_place(numbers: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        for bits, factor in _ROUNDS:
            numbers = (numbers ^ (numbers >> bits & _ones(bits))) * factor
        return numbers ^ (numbers >> _LAST & _ones(_LAST))
    shifted = torch.empty_like(numbers)
    for bits, factor in _ROUNDS:
        torch.bitwise_right_shift(numbers, bits, out=shifted)
        numbers.bitwise_xor_(shifted.bitwise_and_(_ones(bits))).mul_(factor)
    torch.bitwise_right_shift(numbers, _LAST, out=shifted)
    return numbers.bitwise_xor_(shifted.bitwise_and_(_ones(_LAST)))


def _ones(bits: int) -> int:
    """What is left of 64 bits after a shift: torch shifts signed numbers, which fills them up with the sign."""
    return (1 << (64 - bits)) - 1


@lru_cache(maxsize=16)
def _counters(heads: int, rows: int, words: int, device: torch.device) -> Tensor:
    # Made while sampling, in inference mode, they could not be used in training.
    with torch.inference_mode(False):
        return _new_counters(heads, rows, words, device)


def _new_counters(heads: int, rows: int, words: int, device: torch.device) -> Tensor:
    numbers = torch.arange(1, heads * rows * words + 1, device=device)
    if torch.compiler.is_compiling():
        # torch.compile writes a range times a number as a product of the loop's index in C++. Where that overflows, it is
        # undefined: GCC took it for the end of the loop, and wrote beyond the tensor. So in halves, whose products do not. The
        # mask makes the index a number of 64 bits: products of indices with a small number have 32.
        numbers, high, low = numbers & _ones(32), _INCREMENT >> 32 & _ones(32), _INCREMENT & _ones(32)
        return (((numbers * high & _ones(32)) << 32) + numbers * low).view(heads, rows, words)
    return (numbers * _INCREMENT).view(heads, rows, words)
