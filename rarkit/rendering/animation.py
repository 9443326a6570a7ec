"""Images that appear token by token, as a GIF.

Shape letters: N images, H, W, C their height, width and channels, L tokens of an image, Y and X rows and columns of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarkit.inference.files import captioned, check_place, writing

if TYPE_CHECKING:
    from PIL.Image import Image

    from rarkit.inference.drawing import Drawing

GREY = 128
"""A cell that is not drawn yet."""
MOST_FRAMES = 64
COLOURS = 254
"""A GIF has 256: one is ``GREY``, and one is kept for what a frame leaves as it was, which makes the file a tenth as large."""
WIDEST = 1200
"""Pixels of the whole; images are made smaller for it."""
DRAWING_MS, SHORTEST_MS, LONGEST_MS, HELD_MS = 4000, 50, 200, 2500
"""How long the drawing takes in all, what one frame takes at least and at most, and how long the last one is held."""


def write(drawing: Drawing, path: str) -> list[str]:
    """What ``Drawing.animate`` does."""
    check_place(path, (".gif",), folder=False)
    steps = frame_steps(len(drawing.order_L))
    shown = list(_indexed(frames(drawing, steps)))
    each = int(np.clip(DRAWING_MS // len(shown), SHORTEST_MS, LONGEST_MS)) // 10 * 10
    times = [*[each] * (len(shown) - 1), HELD_MS]
    target = Path(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        shown[0].save(partial, "GIF", save_all=True, append_images=shown[1:], duration=times, loop=0, optimize=True)
        os.replace(partial, target)
    return [path]


def frame_steps(length: int) -> list[int]:
    """How many tokens are drawn in each frame: from none to all L, evenly, in at most ``MOST_FRAMES`` frames."""
    return [int(step) for step in np.linspace(0, length, min(length + 1, MOST_FRAMES)).round()]


def partly_drawn(drawing: Drawing, drawn: int) -> NDArray[np.uint8]:
    """The images (N, H, W, C) after ``drawn`` steps: cells as they are in the finished images, the others ``GREY``."""
    height, width = drawing.images_NHWC.shape[1:3]
    rows, columns = drawing.grid
    visible_L = np.zeros(len(drawing.order_L), dtype=bool)
    visible_L[drawing.order_L[:drawn]] = True
    visible_HW = visible_L.reshape(rows, columns).repeat(height // rows, 0).repeat(width // columns, 1)
    return np.where(visible_HW[None, :, :, None], drawing.images_NHWC, np.uint8(GREY))


def frames(drawing: Drawing, steps: list[int]) -> Iterator[Image]:
    """The frames in colour, the last one first: its colours decide on the palette."""
    for step in reversed(steps):
        yield captioned(drawing, partly_drawn(drawing, step), widest=WIDEST)


def _indexed(pictures: Iterator[Image]) -> list[Image]:
    """Frames in one palette, in the order in which they are shown.

    What is as in the last frame looks as in the last frame: dithered anew, every frame would flicker.
    """
    from PIL import Image

    last = next(pictures)
    palette = Image.new("P", (1, 1))
    colours = last.quantize(COLOURS, Image.Quantize.MEDIANCUT).getpalette() or []
    palette.putpalette([*colours[: COLOURS * 3], *[GREY] * (256 * 3 - len(colours[: COLOURS * 3]))])
    final_YX = np.asarray(last.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    colours_YXC = np.asarray(last)
    found = []
    for picture in (last, *pictures):
        same_YX = (np.asarray(picture) == colours_YXC).all(-1)
        plain_YX = np.asarray(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        frame = Image.fromarray(np.where(same_YX, final_YX, plain_YX).astype(np.uint8), "P")
        frame.putpalette(palette.getpalette() or [])
        found.append(frame)
    return found[::-1]
