"""Images that appear token by token, as a GIF.

Shape letters: N images, H, W, C their height, width and channels, L tokens of an image, Y and X rows and columns of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarkit.files.atomic import rewriting
from rarkit.rendering.pictures import captioned

if TYPE_CHECKING:
    from PIL.Image import Image

GREY = 128
"""A cell that is not drawn yet."""
MOST_FRAMES = 64
COLOURS = 254
"""A GIF has 256: one is ``GREY``, one stands for pixels that a frame leaves as they were, which makes the file a tenth as large."""
WIDEST = 1200
"""Pixels of a frame; images are made smaller to fit."""
DRAWING_MS, SHORTEST_MS, LONGEST_MS, HELD_MS = 4000, 50, 200, 2500
"""How long the drawing takes in all, how long one frame is shown at least and at most, and how long the last one is held."""


def write_gif(
    images_NHWC: NDArray[np.uint8], captions: Sequence[str], grid: tuple[int, int], order_L: NDArray[np.int64], path: Path
) -> None:
    """Writes an animation in which the images appear cell by cell along a scan order; whole or not at all.

    A cell shows what it shows in the finished image; cells that are not drawn yet are grey.

    Args:
        images_NHWC: uint8, of 1 or 3 channels; those of the first caption come first, and all captions have as many.
        captions: as ``captioned`` takes them.
        grid: rows and columns of cells; they divide the images' height and width.
        order_L: the raster index visited at each step, a bijection onto the cells.
        path: what is there is replaced.

    Raises:
        OSError: the file cannot be written.
    """
    drawn_backwards = reversed(frame_steps(len(order_L)))
    pictures = (captioned(partly_drawn(images_NHWC, grid, order_L, drawn), captions, WIDEST) for drawn in drawn_backwards)
    frames = _indexed(pictures)
    each = int(np.clip(DRAWING_MS // len(frames), SHORTEST_MS, LONGEST_MS)) // 10 * 10
    times = [*[each] * (len(frames) - 1), HELD_MS]
    with rewriting(path) as file:
        frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)


def frame_steps(length: int) -> list[int]:
    """How many tokens are drawn in each frame: from none to all L, evenly, in at most ``MOST_FRAMES`` frames."""
    return [int(step) for step in np.linspace(0, length, min(length + 1, MOST_FRAMES)).round()]


def partly_drawn(
    images_NHWC: NDArray[np.uint8], grid: tuple[int, int], order_L: NDArray[np.int64], drawn: int
) -> NDArray[np.uint8]:
    """The images (N, H, W, C) after ``drawn`` steps: cells as they are in the finished images, the others ``GREY``."""
    height, width = images_NHWC.shape[1:3]
    rows, columns = grid
    visible_L = np.zeros(len(order_L), dtype=bool)
    visible_L[order_L[:drawn]] = True
    visible_HW = visible_L.reshape(rows, columns).repeat(height // rows, 0).repeat(width // columns, 1)
    return np.where(visible_HW[None, :, :, None], images_NHWC, np.uint8(GREY))


def _indexed(pictures_backwards: Iterator[Image]) -> list[Image]:
    """Frames in one palette, in the order in which they are shown. The last picture comes first: its colours make the palette.

    Pixels that look as in the last picture get exactly its colours: dithered afresh, every frame would flicker.
    """
    from PIL import Image

    last = next(pictures_backwards)
    palette = Image.new("P", (1, 1))
    colours = last.quantize(COLOURS, Image.Quantize.MEDIANCUT).getpalette() or []
    palette.putpalette([*colours[: COLOURS * 3], *[GREY] * (256 * 3 - len(colours[: COLOURS * 3]))])
    final_YX = np.asarray(last.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    colours_YXC = np.asarray(last)
    frames_backwards = []
    for picture in (last, *pictures_backwards):
        same_YX = (np.asarray(picture) == colours_YXC).all(-1)
        plain_YX = np.asarray(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        frame = Image.fromarray(np.where(same_YX, final_YX, plain_YX).astype(np.uint8), "P")
        frame.putpalette(palette.getpalette() or [])
        frames_backwards.append(frame)
    return frames_backwards[::-1]
