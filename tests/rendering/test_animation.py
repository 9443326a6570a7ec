"""Cells appear when the scan order visits them, as they are in the end, and no colour but theirs ever moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rarkit.rendering.animation import GREY, HELD_MS, MOST_FRAMES, WIDEST, frame_steps, partly_drawn, write_gif
from rarkit.rendering.pictures import layout


def drawn_images(grid, height, width, channels, seed=0):
    """Two random images of cells of ``height`` × ``width`` pixels, and a random order of the cells."""
    random = np.random.default_rng(seed)
    rows, columns = grid
    images = random.integers(0, 256, (2, rows * height, columns * width, channels), dtype=np.uint8)
    return images, random.permutation(rows * columns)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2000))
def test_frames_go_from_nothing_to_everything(length):
    steps = frame_steps(length)
    assert (steps[0], steps[-1]) == (0, length)
    assert len(steps) == min(length + 1, MOST_FRAMES)
    assert all(former < later for former, later in pairwise(steps))


@settings(max_examples=40, deadline=None)
@given(*[st.integers(1, 4)] * 4, st.sampled_from([1, 3]), st.integers(0, 99), st.data())
def test_a_cell_is_grey_until_it_is_visited(rows, columns, height, width, channels, seed, data):
    images, order = drawn_images((rows, columns), height, width, channels, seed)
    drawn = data.draw(st.integers(0, rows * columns))
    shown = partly_drawn(images, (rows, columns), order, drawn)
    for step, cell in enumerate(order):
        row, column = divmod(int(cell), columns)
        place = np.s_[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        expected = images[place] if step < drawn else np.full_like(images[place], GREY)
        np.testing.assert_array_equal(shown[place], expected)


@pytest.mark.parametrize(("rows", "side"), [(3, 7), (16, 16), (2, 320)])
def test_what_has_appeared_stays(tmp_path, rows, side):
    images, order = drawn_images((rows, rows), side, side, 3)
    write_gif(images, ("first", "second"), (rows, rows), order, tmp_path / "it.gif")
    gif, seen = Image.open(tmp_path / "it.gif"), []
    assert gif.n_frames == min(rows * rows + 1, MOST_FRAMES)
    assert gif.info["loop"] == 0
    for number in range(gif.n_frames):
        gif.seek(number)
        seen.append(np.asarray(gif.convert("RGB")))
    assert gif.info["duration"] == HELD_MS
    grey, grid = [(frame == GREY).all(-1) for frame in seen], layout(images, columns=2, widest=WIDEST)
    # The smoothed edges of the captions' letters may have that grey too.
    assert 0 <= grey[0].sum() - 2 * grid.cell_height * grid.cell_width < 100
    assert grey[-1].sum() < grey[0].sum() / 100
    if rows * side <= WIDEST // 2:
        # Made smaller, a cell's edge is mixed with its neighbours.
        for (former, later), was_grey in zip(pairwise(seen), grey, strict=False):
            np.testing.assert_array_equal(former[~was_grey], later[~was_grey])
