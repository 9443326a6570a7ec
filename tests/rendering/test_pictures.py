"""Pictures: every image lies where the layout says, in its own colours, and labels never move or cover it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.errors import GridError
from rarkit.rendering.colours import PAPER, along
from rarkit.rendering.figures import PictureGrid
from rarkit.rendering.pictures import (
    MOST_COLUMN_LABELS,
    SHOWN_SIDE,
    captioned,
    grid_image,
    labelled,
    layout,
    mosaic,
    scan_order_image,
)
from rarkit.testing.strategies import grids

sides = st.integers(1, 12)


def flat(colours_NC, height, width):
    """Images of one colour each."""
    colours = np.asarray(colours_NC, dtype=np.uint8)
    return np.broadcast_to(colours[:, None, None], (len(colours), height, width, colours.shape[1])).copy()


def of(picture):
    return np.asarray(picture)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), sides, sides, st.sampled_from([1, 3]), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_every_cell_is_its_image_magnified(count, columns, height, width, channels, scale, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    grid, pixels = layout(images, columns=columns, scale=scale), of(mosaic(images, columns=columns, scale=scale))
    assert (grid.cell_height, grid.cell_width) == (height * scale, width * scale)
    assert pixels.shape == (grid.height, grid.width, 4)
    opaque = 0
    for index, image in enumerate(images):
        x, y = grid.origin(*divmod(index, columns))
        cell = pixels[y : y + grid.cell_height, x : x + grid.cell_width]
        np.testing.assert_array_equal(cell[..., :3], np.broadcast_to(image.repeat(scale, 0).repeat(scale, 1), (*cell.shape[:2], 3)))
        opaque += cell.shape[0] * cell.shape[1]
    assert (pixels[..., 3] > 0).sum() == opaque, "gutters are transparent, and no image covers another"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans(), st.booleans())
def test_labels_and_title_leave_the_images_whole(rows, columns, named_rows, named_columns, titled):
    colour = (10, 200, 30)
    images = flat([colour] * (rows * columns), 8, 8)
    picture = grid_image(
        images,
        columns=columns,
        row_labels=[f"row {row}" for row in range(rows)] if named_rows else None,
        column_labels=[f"column {column}" for column in range(columns)] if named_columns else None,
        title="all of them" if titled else None,
    )
    assert (of(picture) == colour).all(-1).sum() == rows * columns * SHOWN_SIDE**2
    bare = grid_image(images, columns=columns)
    assert picture.width >= bare.width
    assert (picture.height > bare.height) == (named_columns or titled)
    assert picture.getpixel((0, 0)) == bare.getpixel((0, 0)) == PAPER


def test_a_label_stands_beside_its_row():
    images = flat([(255, 0, 0), (0, 255, 0)], 32, 32)
    two = of(grid_image(images, columns=1, row_labels=["", "second"]))
    inked = np.flatnonzero((two[:, :60].astype(int).sum(-1) < 300).any(1))
    green = np.flatnonzero((two == (0, 255, 0)).all(-1).any(1))
    assert green.min() <= inked.min() <= inked.max() <= green.max()


@pytest.mark.parametrize(
    ("count", "asked", "columns"),
    [(9, {}, 3), (10, {}, 4), (6, {"row_labels": "ab"}, 3), (6, {"column_labels": "ab"}, 2), (7, {"row_labels": "ab"}, 4)],
)
def test_columns_follow_from_labels_or_are_nearly_a_square(count, asked, columns):
    images = flat([(0, 0, 0)] * count, 8, 8)
    picture = grid_image(images, **{name: list(labels) for name, labels in asked.items()})
    expected = grid_image(images, columns=columns, **{name: list(labels) for name, labels in asked.items()})
    assert picture.size == expected.size
    black = (of(picture) == 0).all(-1)
    assert (np.diff(np.flatnonzero(black[black.sum(1).argmax()])) > 1).sum() == columns - 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 30))
def test_small_images_grow_and_wide_grids_stay_within_bounds(height, width, columns):
    cells = layout(np.zeros((1, height, width, 1), np.uint8), columns=columns, widest=1000)
    assert cells.width <= 1000 + columns
    fits = columns * (max(width, SHOWN_SIDE) + 20) <= 1000
    if fits and max(height, width) <= SHOWN_SIDE:
        assert cells.cell_width % width == 0
        assert 2 / 3 * SHOWN_SIDE <= max(cells.cell_height, cells.cell_width) <= 1.5 * SHOWN_SIDE
    if fits and max(height, width) > 2 * SHOWN_SIDE:
        assert (cells.cell_height, cells.cell_width) == (height, width)


def test_an_eight_by_eight_digit_is_48_pixels():
    assert layout(np.zeros((1, 8, 8, 1), np.uint8), columns=1).cell_width == 48


def test_shrunk_images_keep_their_mean_colour():
    stripes = np.zeros((4, 64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    pixels = of(mosaic(stripes, columns=4, widest=80))
    assert abs(pixels[pixels[..., 3] > 0][:, :3].mean() - 100) < 5


@pytest.mark.parametrize(
    ("images", "asked", "says"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), {}, "at least one image"),
        (np.zeros((2, 8, 8), np.uint8), {}, "channels"),
        (np.zeros((2, 8, 8, 2), np.uint8), {}, "channels"),
        (np.zeros((2, 8, 8, 1), np.float32), {}, "float32"),
        (np.zeros((2, 8, 8, 1), np.uint8), {"columns": 0}, "0 columns"),
        (np.zeros((2, 8, 8, 1), np.uint8), {"scale": 0}, "magnified 0"),
        (np.zeros((4, 8, 8, 1), np.uint8), {"columns": 2, "row_labels": ["one"]}, "1 row labels"),
        (np.zeros((4, 8, 8, 1), np.uint8), {"columns": 2, "column_labels": ["a", "b", "c"]}, "3 column labels"),
    ],
)
def test_what_cannot_be_drawn_is_said(images, asked, says):
    with pytest.raises(GridError, match=says):
        grid_image(images, **asked)


def test_labels_longer_than_their_room_are_cut():
    images = flat([(0, 0, 0)] * 2, 8, 8)
    long = grid_image(images, columns=2, row_labels=["tench, " * 100], column_labels=["goldfish " * 20, "b"])
    assert long.width < 450


def test_a_report_grid_is_drawn_with_its_labels():
    images = flat([(255, 0, 0), (0, 255, 0), (0, 0, 255)], 8, 8)
    grid = PictureGrid("Three", "of them", images, 2, ("x", "y"), ("1", "2"))
    expected = grid_image(images, columns=2, row_labels=["x", "y"], column_labels=["1", "2"], title="Three")
    assert of(labelled(grid, title=True)).tobytes() == of(expected).tobytes()
    assert labelled(grid).height < expected.height


@pytest.mark.parametrize(
    ("count", "captions", "asked"),
    [
        (5, ["tench"], {"title": "tench"}),
        (6, ["tench", "goldfish"], {"columns": 3, "row_labels": ["tench", "goldfish"]}),
        (3, ["a", "b", "c"], {"column_labels": ["a", "b", "c"]}),
        (MOST_COLUMN_LABELS + 1, list("abcdefghijk"), {"columns": 1, "row_labels": list("abcdefghijk")}),
    ],
)
def test_captions_stand_above_one_row_and_beside_several(count, captions, asked):
    images = flat([(9 * index, 0, 0) for index in range(count)], 8, 8)
    assert of(captioned(images, captions)).tobytes() == of(grid_image(images, **asked)).tobytes()
    assert captioned(np.repeat(images, 40, axis=2), captions, widest=200).width < 400


@settings(max_examples=25, deadline=None)
@given(grids(), st.integers(0, 2**32 - 1))
def test_a_scan_order_is_drawn_whole(grid, seed):
    height, width = grid
    order = np.random.default_rng(seed).permutation(height * width)
    picture = scan_order_image(order, height, width)
    cell = int(np.clip(900 // max(height, width), 6, 72))
    assert (picture.width - 1) % cell == (picture.height - 1) % cell == 32 % cell
    if cell >= 30 and len(order) > 1:
        row, column = divmod(int(order[-1]), width)
        assert picture.getpixel((16 + column * cell + cell // 2, 16 + row * cell + cell // 2)) == along(1.0)
        row, column = divmod(int(order[0]), width)
        assert picture.getpixel((16 + column * cell + cell // 2, 16 + row * cell + cell // 2)) == PAPER


def test_colours_grow_lighter_on_the_way():
    brightness = [0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in map(along, np.linspace(0, 1, 33))]
    assert brightness[0] < brightness[16] < brightness[-1]
    assert along(-1.0) == along(0.0) != along(1.0) == along(2.0)
