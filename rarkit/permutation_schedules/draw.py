"""Draws the order of each sample of a training step, given the random ratio.

Shape letters: B samples, L tokens of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.randomness import random_bits, uniforms
from rarkit.registry.inputs import probability, sample_indices, scan_order, whole

if TYPE_CHECKING:
    from torch import Tensor


@overload
def draw_orders(
    scan_order_L: NDArray[np.integer] | Sequence[int], ratio: float, *, seed: int, step: int, indices: ArrayLike
) -> NDArray[np.int64]: ...


@overload
def draw_orders(scan_order_L: Tensor, ratio: float, *, seed: int, step: int, indices: ArrayLike) -> Tensor: ...


def draw_orders(
    scan_order_L: NDArray[np.integer] | Sequence[int] | Tensor, ratio: float, *, seed: int, step: int, indices: ArrayLike
) -> NDArray[np.int64] | Tensor:
    """The order in which the tokens of each sample are visited in a training step.

    Args:
        scan_order_L: (L,) integers, the raster index visited at each step; an array, or a tensor on any device. Reading a tensor on
            a GPU waits for it: in a loop, pass an array, or a tensor on the CPU.
        ratio: the random ratio in [0, 1].
        seed: the run's seed.
        step: the training step.
        indices: (B,) the samples' indices in the global batch.

    Returns:
        (B, L) int64: with probability ``ratio`` a uniformly random permutation, else the scan order. Row b depends only on (seed,
        step, indices[b]), not on how the global batch is split. An array, or a tensor on the scan order's device; the numbers are
        the same.

    Raises:
        GridError: the scan order does not visit each cell once.
        UserError: the ratio is not from 0 to 1, the step or an index is not a whole number from 0, or the seed no whole number.
    """
    # Whatever is no tensor is an array, or is refused as one.
    if isinstance(scan_order_L, np.ndarray | Sequence) or not hasattr(scan_order_L, "detach"):
        return _drawn(scan_order(scan_order_L), ratio, seed, step, indices)
    import torch

    orders_BL = _drawn(scan_order(scan_order_L.cpu().numpy()), ratio, seed, step, indices)
    return torch.from_numpy(orders_BL).to(scan_order_L.device)


def _drawn(scan_order_L: NDArray[np.int64], ratio: float, seed: int, step: int, indices: ArrayLike) -> NDArray[np.int64]:
    ratio, step, index_B = probability("the random ratio", ratio), whole("the step", step), sample_indices(indices)
    random_B = uniforms(seed, "random or not", step, index_B, 1)[:, 0] < ratio
    orders_BL = np.tile(scan_order_L, (index_B.size, 1))
    # Sorting independent uniform keys gives a uniform permutation; 64-bit keys practically never collide.
    keys = random_bits(seed, "permutation", step, index_B[random_B], scan_order_L.size)
    orders_BL[random_B] = np.argsort(keys, axis=1, kind="stable")
    return orders_BL
