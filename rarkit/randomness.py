"""Random numbers as a pure function of (seed, purpose, step, index): they do not depend on who draws them or on batching.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), written over NumPy arrays:
NumPy's own Philox holds a single state and would need a Python loop over the rows of a batch.
"""

from __future__ import annotations

import zlib
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.errors import UserError

_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_DRAWN_AT_ONCE = 2**20


def philox(counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int]) -> tuple[NDArray[np.uint64], ...]:
    """Maps counters of four 32-bit words to four random 32-bit words, all in uint64 arrays that broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _HALF) ^ c1 ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> _HALF) ^ c3 ^ np.uint64(k1),
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def random_bits(seed: int, purpose: str, step: int, indices: ArrayLike, count: int) -> NDArray[np.uint64]:
    """Uniform 64-bit integers.

    Args:
        seed: any integer; only its low 64 bits are used.
        purpose: separates independent streams (``"permutation"``, ``"noise"``, …).
        step: 0 ≤ step < 2³².
        indices: (B,) sample indices, 0 ≤ index < 2³².
        count: numbers per index.

    Returns:
        (B, count) uint64. Row b depends only on (seed, purpose, step, indices[b]); a larger ``count`` keeps its first numbers.

    Raises:
        UserError: the seed is no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise UserError(f"the seed is {seed!r}; it must be a whole number")
    seed = int(seed)
    index_B1 = np.asarray(indices, dtype=np.uint64).reshape(-1, 1)
    block_1K = np.arange((count + 1) // 2, dtype=np.uint64).reshape(1, -1)
    shape = (index_B1.shape[0], block_1K.shape[1])
    constant = (np.full((1, 1), value, dtype=np.uint64) for value in (step, zlib.crc32(purpose.encode())))
    words = philox((block_1K, index_B1, *constant), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    w0, w1, w2, w3 = (np.broadcast_to(word, shape) for word in words)
    return np.stack([w0 << _HALF | w1, w2 << _HALF | w3], axis=-1).reshape(shape[0], 2 * shape[1])[:, :count]


def uniforms(seed: int, purpose: str, step: int, indices: ArrayLike, count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) with 53 random bits: ``random_bits``, scaled. Returns (B, count) float64."""
    bits: NDArray[np.float64] = (random_bits(seed, purpose, step, indices, count) >> np.uint64(11)).astype(np.float64)
    return bits * 2.0**-53


def drawn_rows(seed: int, count: int, most: int) -> NDArray[np.int64]:
    """Rows to stand for all ``count`` rows of some data: ``most`` of them, drawn without replacement, or all if there are no more.

    Data are often sorted, by class for instance, so its first rows do not stand for the rest.

    Args:
        seed: decides the draw, with ``count`` alone: the rows of a smaller ``most`` are among those of a larger one.
        count: 0 ≤ count < 2³².
        most: at least 1.

    Returns:
        (min(count, most),) int64, ascending.
    """
    if count <= most:
        return np.arange(count)
    # In pieces, because a draw takes several times the memory of its result.
    pieces = (np.arange(start, min(start + _DRAWN_AT_ONCE, count)) for start in range(0, count, _DRAWN_AT_ONCE))
    chance_N = np.concatenate([uniforms(seed, "images", 0, piece, 1)[:, 0] for piece in pieces])
    rows_N: NDArray[np.int64] = np.sort(np.argsort(chance_N, kind="stable")[:most])
    return rows_N


def derived_seed(seed: int, purpose: str, step: int = 0) -> int:
    """A seed in [0, 2⁶³) for a library's own generator (k-means, dropout of one step)."""
    return int(random_bits(seed, purpose, step, [0], 1)[0, 0] >> np.uint64(1))
