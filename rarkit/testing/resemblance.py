"""Whether images resemble each other, and whether what changes in one half of a grid stays there.

Shape letters: B batch, H and W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def nearness(axis: int, values: Tensor, grid: tuple[int, int], mapped: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """How much ``mapped`` changes where its input changes, and elsewhere.

    The second half of the first half of a batch is replaced, along ``axis`` (1 rows, 2 columns), by that of the others.

    Returns:
        The mean change in the second half of the grid, and in the first: the share of codes, or the levels of pixels.
    """
    import torch

    count, side = len(values) // 2, grid[axis - 1]
    first, others = values[:count], values[count : 2 * count]
    share = (side - side // 2) / side
    behind = round(values.shape[axis] * share)
    mixed = torch.cat([first.narrow(axis, 0, values.shape[axis] - behind), _end(others, axis, behind)], dim=axis)
    before, after = mapped(first), mapped(mixed)
    # Codes are numbers without an order, so it counts only whether they differ.
    change = (before != after).double() if before.ndim == 3 else (before.double() - after.double()).abs()
    length = change.shape[axis]
    behind = round(length * share)
    return float(_end(change, axis, behind).mean()), float(change.narrow(axis, 0, length - behind).mean())


def _end(values: Tensor, axis: int, length: int) -> Tensor:
    return values.narrow(axis, values.shape[axis] - length, length)


def faults_of_likeness(decoded_BHWC: Tensor, images_BHWC: Tensor) -> Iterator[str]:
    """What is wrong with decoded images, in words; nothing if they resemble the originals."""
    spread, original = float(decoded_BHWC.std()), float(images_BHWC.std())
    if spread < 0.3 * original:
        yield f"has pixels with a standard deviation of {spread:.1f} levels, where those of the pictures have {original:.1f}"
        return
    shift = float(decoded_BHWC.mean() - images_BHWC.mean())
    if abs(shift) > 48:
        yield f"is {abs(shift):.0f} levels {'lighter' if shift > 0 else 'darker'} than the pictures"
    likeness = _correlation(decoded_BHWC, images_BHWC)
    changed = {
        "upside down": images_BHWC.flip(1),
        "mirrored": images_BHWC.flip(2),
        "turned by 180 degrees": images_BHWC.flip(1, 2),
        "with its channels in reverse": images_BHWC.flip(3),
        "negative": -images_BHWC,
    }
    if images_BHWC.shape[1] == images_BHWC.shape[2]:
        turned_BHWC = images_BHWC.transpose(1, 2)
        changed |= {"transposed": turned_BHWC, "turned left": turned_BHWC.flip(1), "turned right": turned_BHWC.flip(2)}
    others = {words: _correlation(decoded_BHWC, other_BHWC) for words, other_BHWC in changed.items()}
    closest = max(others, key=lambda words: others[words])
    if others[closest] > likeness + 1e-9:
        yield f"is like the picture {closest}"
        return
    if likeness < 0.3:
        yield f"has little in common with the pictures (a correlation of {likeness:.2f})"


def _correlation(one_BHWC: Tensor, two_BHWC: Tensor) -> float:
    one_BHWC, two_BHWC = (values - values.mean((0, 1, 2)) for values in (one_BHWC, two_BHWC))
    return float((one_BHWC * two_BHWC).sum() / (one_BHWC.norm() * two_BHWC.norm()).clamp(min=1e-12))
