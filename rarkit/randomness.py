"""Random numbers as a pure function of (seed, purpose, step, index): they do not depend on who draws them or on batching.

The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), written over NumPy arrays:
NumPy's own Philox holds a single state and would need a Python loop over the rows of a batch.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.errors import UserError

_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = 0x9E3779B9, 0xBB67AE85
_DRAWN_AT_ONCE = 2**20


def philox(counter: tuple[NDArray[np.uint64], ...], key: tuple[int, int]) -> tuple[NDArray[np.uint64], ...]:
    """Maps counters of four 32-bit words to four random 32-bit words, all in uint64 arrays that broadcast together."""
    # Words 0 and 2, and words 1 and 3, side by side: a few numbers take as long as the calls on them.
    c0, c1, c2, c3 = np.broadcast_arrays(*counter)
    even_2, odd_2 = np.stack([c0, c2]), np.stack([c1, c3])
    shape = 2, *[1] * c0.ndim
    multipliers_2 = _MULTIPLIERS.reshape(shape)
    for keys_2 in _round_keys(key):
        product_2 = multipliers_2 * even_2
        even_2, odd_2 = (product_2 >> _HALF)[::-1] ^ odd_2 ^ keys_2.reshape(shape), (product_2 & _MASK)[::-1]
    return even_2[0], odd_2[0], even_2[1], odd_2[1]


@lru_cache(maxsize=16)
def _round_keys(key: tuple[int, int]) -> NDArray[np.uint64]:
    """Both key words of each of ten rounds, (10, 2)."""
    rounds = [[(word + step * turn) & 0xFFFFFFFF for word, step in zip(key, _WEYL, strict=True)] for turn in range(10)]
    return np.array(rounds, np.uint64)


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
    constants = np.array([step, zlib.crc32(purpose.encode())], np.uint64).reshape(2, 1, 1)
    w0, w1, w2, w3 = philox((block_1K, index_B1, *constants), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    return np.stack([w0 << _HALF | w1, w2 << _HALF | w3], axis=-1).reshape(len(index_B1), 2 * block_1K.shape[1])[:, :count]


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
