"""Pictures: grids of images with labels, scan orders drawn as paths."""

from __future__ import annotations

import colorsys
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarkit.report.data import PictureGrid

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

SHOWN_SIDE = 48
"""Smaller images are magnified, by a whole number, to about this many pixels."""
LARGEST_WIDTH = 2400
GUTTER, MARGIN, FONT_SIZE = 4, 16, 15
PAPER, INK, FAINT = (252, 252, 250), (40, 40, 44), (214, 214, 210)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def magnification(height: int, width: int) -> int:
    """By how much small images are enlarged."""
    return max(1, round(SHOWN_SIDE / max(height, width)))


def cell_origin(grid: PictureGrid, row: int, column: int, label_width: int) -> tuple[int, int]:
    """The left upper pixel of a cell in ``grid_image``."""
    height, width = (side * magnification(*grid.images_NHWC.shape[1:3]) for side in grid.images_NHWC.shape[1:3])
    return MARGIN + label_width + column * (width + GUTTER), MARGIN + row * (height + GUTTER)


def label_width(labels: Sequence[str]) -> int:
    """Room for the row labels."""
    return max((round(_font(FONT_SIZE).getlength(label)) for label in labels), default=-12) + 12


def grid_image(grid: PictureGrid) -> Image:
    """The images in rows, each row with its label; small ones magnified without smoothing."""
    from PIL import Image, ImageDraw

    count, height, width, channels = grid.images_NHWC.shape
    scale = magnification(height, width)
    rows = -(-count // grid.columns)
    labels = label_width(grid.row_labels)
    right, bottom = cell_origin(grid, rows, grid.columns, labels)
    canvas = Image.new("RGB", (right - GUTTER + MARGIN, bottom - GUTTER + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    for index, image_HWC in enumerate(grid.images_NHWC):
        row, column = divmod(index, grid.columns)
        picture = Image.fromarray(image_HWC[..., 0] if channels == 1 else image_HWC).convert("RGB")
        canvas.paste(
            picture.resize((width * scale, height * scale), Image.Resampling.NEAREST), cell_origin(grid, row, column, labels)
        )
    for row, label in enumerate(grid.row_labels):
        y = cell_origin(grid, row, 0, labels)[1] + height * scale // 2
        draw.text((MARGIN + labels - 12, y), label, fill=INK, font=_font(FONT_SIZE), anchor="rm")
    if canvas.width > LARGEST_WIDTH:
        canvas.thumbnail((LARGEST_WIDTH, canvas.height), Image.Resampling.LANCZOS)
    return canvas


def along(share: float) -> tuple[int, int, int]:
    """The colour of a place on the way from start (0, blue) to end (1, red)."""
    red, green, blue = colorsys.hsv_to_rgb(0.62 * (1 - share), 0.75, 0.82)
    return round(red * 255), round(green * 255), round(blue * 255)


def scan_order_image(order_L: NDArray[np.int64], height: int, width: int) -> Image:
    """The path of a scan order over its grid, from blue to red, with step numbers where there is room for them."""
    from PIL import Image, ImageDraw

    cell = int(np.clip(900 // max(height, width), 6, 72))
    canvas = Image.new("RGB", (2 * MARGIN + width * cell + 1, 2 * MARGIN + height * cell + 1), PAPER)
    draw = ImageDraw.Draw(canvas)
    for row in range(height + 1):
        draw.line([(MARGIN, MARGIN + row * cell), (MARGIN + width * cell, MARGIN + row * cell)], fill=FAINT)
    for column in range(width + 1):
        draw.line([(MARGIN + column * cell, MARGIN), (MARGIN + column * cell, MARGIN + height * cell)], fill=FAINT)
    centres = [(MARGIN + int(i % width) * cell + cell // 2, MARGIN + int(i // width) * cell + cell // 2) for i in order_L]
    last = max(1, len(centres) - 1)
    for step in range(len(centres) - 1):
        draw.line([centres[step], centres[step + 1]], fill=along(step / last), width=max(2, cell // 12))
    radius = max(2, cell // 10)
    for step, (x, y) in enumerate(centres):
        size = radius * 2 if step == 0 else radius
        draw.ellipse([x - size, y - size, x + size, y + size], fill=along(step / last))
        if cell >= 36:
            draw.text((x + radius, y - radius), str(step), fill=INK, font=_font(max(9, cell // 5)), anchor="lb")
    return canvas


def png_bytes(image: Image) -> bytes:
    """The image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def write_png(image: Image, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(png_bytes(image))
    os.replace(partial, path)
