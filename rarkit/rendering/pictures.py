"""Pictures: grids of images with labels, scan orders drawn as paths.

Shape letters: N images, H, W, C their height, width and channels (1 or 3); L steps of a scan order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import GridError
from rarkit.rendering.colours import FAINT, INK, PAPER, along
from rarkit.rendering.figures import PictureGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

SHOWN_SIDE = 48
"""Smaller images are magnified, by a whole number, to about this many pixels."""
WIDEST = 2400
"""Pixels of a grid; images are made smaller to fit."""
GUTTER, MARGIN, FONT_SIZE, TITLE_SIZE = 4, 16, 15, 20
LONGEST_LABEL = 240
"""In pixels, as the others."""
MOST_COLUMN_LABELS = 10
"""With one image to a caption, up to this many stand in one row under their captions; more stand one below the other."""


@final
@dataclass(frozen=True)
class Layout:
    """Where the images of a grid lie, in pixels: equal cells with gutters between, and half a gutter around them all."""

    rows: int
    columns: int
    cell_height: int
    cell_width: int

    @property
    def height(self) -> int:
        return self.rows * (self.cell_height + GUTTER)

    @property
    def width(self) -> int:
        return self.columns * (self.cell_width + GUTTER)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """The left upper pixel (x, y) of a cell."""
        return column * (self.cell_width + GUTTER) + GUTTER // 2, row * (self.cell_height + GUTTER) + GUTTER // 2


def layout(images_NHWC: NDArray[np.uint8], *, columns: int, scale: int | None = None, widest: int = WIDEST) -> Layout:
    """The layout of N images in rows of ``columns``.

    Args:
        images_NHWC: uint8, of 1 or 3 channels.
        columns: images in a row.
        scale: by how much images are magnified; None: to about ``SHOWN_SIDE`` pixels, or not at all if they are larger.
        widest: images are made smaller where the grid would be wider.

    Raises:
        GridError: there is no image, or the array is not one of images.
    """
    shape = images_NHWC.shape
    if len(shape) != 4 or shape[-1] not in (1, 3) or 0 in shape or images_NHWC.dtype != np.uint8:
        raise GridError(
            f"a grid of pictures needs uint8 images (N, H, W, C) with 1 or 3 channels, but was given {images_NHWC.dtype} "
            f"of shape {shape}. Give at least one image in that form."
        )
    if columns < 1 or (scale is not None and scale < 1):
        raise GridError(f"a grid of pictures cannot have {columns} columns, magnified {scale} times. Give 1 or more of each.")
    count, height, width, _ = shape
    scale = max(1, round(SHOWN_SIDE / max(height, width))) if scale is None else scale
    factor = min(float(scale), max(1.0, widest / columns - GUTTER) / width)
    return Layout(-(-count // columns), columns, max(1, round(height * factor)), max(1, round(width * factor)))


def check_labels(grid: Layout, row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    """Refuses labels that would stand beside the wrong images.

    Raises:
        GridError: there are labels, but not one for each row or column.
    """
    for what, names, there in (("row", row_labels, grid.rows), ("column", column_labels, grid.columns)):
        if names and len(names) != there:
            raise GridError(f"a grid of {there} {what}s was given {len(names)} {what} labels. Give one for each {what}, or none.")


def mosaic(images_NHWC: NDArray[np.uint8], *, columns: int, scale: int | None = None, widest: int = WIDEST) -> Image:
    """The images alone, on a transparent background; arguments and errors are those of ``layout``."""
    from PIL import Image

    grid = layout(images_NHWC, columns=columns, scale=scale, widest=widest)
    canvas = Image.new("RGBA", (grid.width, grid.height), (0, 0, 0, 0))
    larger = grid.cell_width >= images_NHWC.shape[2]
    way = Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS
    for index, image_HWC in enumerate(images_NHWC):
        picture = Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC).convert("RGB")
        canvas.paste(picture.resize((grid.cell_width, grid.cell_height), way), grid.origin(*divmod(index, columns)))
    return canvas


def grid_image(
    images_NHWC: NDArray[np.uint8],
    *,
    columns: int | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    scale: int | None = None,
    title: str | None = None,
    widest: int = WIDEST,
) -> Image:
    """Images in rows on a light background, with labels on the left and on top; small ones magnified without smoothing.

    Args:
        images_NHWC: uint8, of 1 or 3 channels, row by row.
        columns: images in a row; None: as many as the labels say, else a square or nearly so.
        row_labels: one for each row; long ones are cut.
        column_labels: one for each column; those too long for it are cut.
        scale: by how much images are magnified; None: to about ``SHOWN_SIDE`` pixels, or not at all if they are larger.
        title: above everything.
        widest: images are made smaller where the picture would be wider.

    Returns:
        An RGB image.

    Raises:
        GridError: there is no image, the array is not one of images, or there are not as many labels as rows or columns.
    """
    from PIL import Image, ImageDraw

    rows_named, columns_named = list(row_labels or ()), list(column_labels or ())
    count = len(images_NHWC)
    if columns is None:
        columns = len(columns_named) or (-(-count // len(rows_named)) if rows_named else math.ceil(math.sqrt(count)))
    grid = layout(images_NHWC, columns=columns, scale=scale, widest=widest)
    check_labels(grid, rows_named, columns_named)
    font, bold = _font(FONT_SIZE), _font(TITLE_SIZE)
    rows_named = [_cut(label, LONGEST_LABEL, font) for label in rows_named]
    columns_named = [_cut(label, grid.cell_width, font) for label in columns_named]
    left = MARGIN + max((round(font.getlength(label)) + 10 for label in rows_named), default=0)
    top = MARGIN + (TITLE_SIZE + 14 if title else 0) + (FONT_SIZE + 8 if columns_named else 0)
    room = round(bold.getlength(title)) + 2 * MARGIN if title else 0
    canvas = Image.new("RGB", (max(left + grid.width + MARGIN, room), top + grid.height + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    pictures = mosaic(images_NHWC, columns=columns, scale=scale, widest=widest)
    canvas.paste(pictures, (left, top), pictures)
    if title:
        draw.text((MARGIN, MARGIN), title, fill=INK, font=bold)
    for row, label in enumerate(rows_named):
        y = top + grid.origin(row, 0)[1] + grid.cell_height // 2
        draw.text((left - 8, y), label, fill=INK, font=font, anchor="rm")
    for column, label in enumerate(columns_named):
        x = left + grid.origin(0, column)[0] + grid.cell_width // 2
        draw.text((x, top - 6), label, fill=INK, font=font, anchor="ms")
    return canvas


def labelled(grid: PictureGrid, *, title: bool = False) -> Image:
    """``grid_image`` of a report's pictures, with their labels."""
    return grid_image(
        grid.images_NHWC,
        columns=grid.columns,
        row_labels=grid.row_labels,
        column_labels=grid.column_labels,
        title=grid.title if title else None,
    )


def captioned(images_NHWC: NDArray[np.uint8], captions: Sequence[str], widest: int = WIDEST) -> Image:
    """Images in rows, one for each caption; those of a single caption in a square under it.

    Args:
        images_NHWC: uint8, of 1 or 3 channels; those of the first caption come first, and all captions have as many.
        captions: at least one.
        widest: images are made smaller where the picture would be wider.

    Raises:
        GridError: as ``grid_image``.
    """
    per_caption = len(images_NHWC) // len(captions)
    if len(captions) == 1:
        return grid_image(images_NHWC, title=captions[0], widest=widest)
    if per_caption == 1 and len(captions) <= MOST_COLUMN_LABELS:
        return grid_image(images_NHWC, column_labels=captions, widest=widest)
    return grid_image(images_NHWC, columns=per_caption, row_labels=captions, widest=widest)


def scan_order_image(order_L: NDArray[np.integer[Any]], height: int, width: int) -> Image:
    """The path of a scan order over its grid, from blue to amber, with step numbers if there is room for them.

    Args:
        order_L: the raster index visited at each step, a bijection onto 0 … height·width − 1.
        height: rows of the grid.
        width: columns of the grid.

    Returns:
        An RGB image of about 900 pixels; a ring marks the start, a square the end.
    """
    from PIL import Image, ImageDraw

    cell = int(np.clip(900 // max(height, width), 6, 72))
    canvas = Image.new("RGB", (2 * MARGIN + width * cell + 1, 2 * MARGIN + height * cell + 1), PAPER)
    draw = ImageDraw.Draw(canvas)
    right, bottom = MARGIN + width * cell, MARGIN + height * cell
    for y in range(MARGIN, bottom + 1, cell):
        draw.line([(MARGIN, y), (right, y)], fill=FAINT)
    for x in range(MARGIN, right + 1, cell):
        draw.line([(x, MARGIN), (x, bottom)], fill=FAINT)
    centres = [(MARGIN + int(i % width) * cell + cell // 2, MARGIN + int(i // width) * cell + cell // 2) for i in order_L]
    last, radius = max(1, len(centres) - 1), max(2, cell // 10)
    for step, ((x1, y1), (x2, y2)) in enumerate(pairwise(centres)):
        near = max(abs(x1 - x2), abs(y1 - y2)) <= cell
        draw.line([x1, y1, x2, y2], fill=along(step / last), width=max(2, cell // 12) if near else max(1, cell // 36))
    for step, (x, y) in enumerate(centres):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=along(step / last))
    (x, y), (end_x, end_y) = centres[0], centres[-1]
    size = min(2 * radius, cell // 2)
    if len(centres) > 1:
        draw.rectangle([end_x - size, end_y - size, end_x + size, end_y + size], fill=along(1.0))
    draw.ellipse([x - size, y - size, x + size, y + size], fill=PAPER, outline=along(0.0), width=max(1, size // 4))
    if cell >= 36:
        font = _font(max(10, cell // 5))
        for step, (x, y) in enumerate(centres):
            place = (x + cell // 2 - 3, y - cell // 2 + 3)
            draw.text(place, str(step), fill=INK, font=font, anchor="rt", stroke_width=2, stroke_fill=PAPER)
    return canvas


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _cut(label: str, room: int, font: FreeTypeFont | ImageFont) -> str:
    """As much of the label as fits into ``room`` pixels."""
    if font.getlength(label) <= room:
        return label
    while label and font.getlength(label + "…") > room:
        label = label[:-1]
    return label.rstrip() + "…" if label else ""
