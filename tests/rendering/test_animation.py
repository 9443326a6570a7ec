"""Cells appear when the scan order visits them, as they are in the end, and no colour but theirs ever moves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rarkit.rendering.animation import GREY, HELD_MS, MOST_FRAMES, WIDEST, frame_steps, partly_drawn
from rarkit.inference.drawing import Drawing
from rarkit.errors import StoreError, UserError
from rarkit.recipe.sections import SampleSettings
from rarkit.rendering.pictures import layout


def drawing(rows, columns, height, width, channels, seed=0, count=2):
    """Random images of ``rows`` × ``columns`` cells of ``height`` × ``width`` pixels, and a random order."""
    random = np.random.default_rng(seed)
    return Drawing(
        images_NHWC=random.integers(0, 256, (count, rows * height, columns * width, channels), dtype=np.uint8),
        labels_N=np.arange(count),
        tokens_NL=np.zeros((count, rows * columns), np.int64),
        classes=tuple(range(count)),
        class_names=tuple(f"class {label}" for label in range(count)),
        per_class=1,
        grid=(rows, columns),
        order_L=random.permutation(rows * columns),
        seed=seed,
        scan_order={"name": "random"},
        settings=SampleSettings(),
    )


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
    picture = drawing(rows, columns, height, width, channels, seed)
    drawn = data.draw(st.integers(0, rows * columns))
    shown = partly_drawn(picture, drawn)
    for step, cell in enumerate(picture.order_L):
        row, column = divmod(int(cell), columns)
        place = np.s_[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
        expected = picture.images_NHWC[place] if step < drawn else np.full_like(picture.images_NHWC[place], GREY)
        np.testing.assert_array_equal(shown[place], expected)


@pytest.mark.parametrize(("rows", "side"), [(3, 7), (16, 16), (2, 320)])
def test_what_has_appeared_stays(tmp_path, rows, side):
    picture = drawing(rows, rows, side, side, 3)
    picture.animate(tmp_path / "it.gif")
    gif, seen = Image.open(tmp_path / "it.gif"), []
    assert gif.n_frames == min(rows * rows + 1, MOST_FRAMES)
    assert gif.info["loop"] == 0
    for number in range(gif.n_frames):
        gif.seek(number)
        seen.append(np.asarray(gif.convert("RGB")))
    assert gif.info["duration"] == HELD_MS
    grey, grid = [(frame == GREY).all(-1) for frame in seen], layout(picture.images_NHWC, columns=2, widest=WIDEST)
    # The smoothed edges of the captions' letters may have that grey too.
    assert 0 <= grey[0].sum() - 2 * grid.cell_height * grid.cell_width < 100
    assert grey[-1].sum() < grey[0].sum() / 100
    if rows * side <= WIDEST // 2:
        # Made smaller, a cell's edge is mixed with its neighbours.
        for (former, later), was_grey in zip(pairwise(seen), grey, strict=False):
            np.testing.assert_array_equal(former[~was_grey], later[~was_grey])


def test_an_animation_is_a_gif(tmp_path):
    for place in ("it.png", "folder/"):
        with pytest.raises(UserError, match=r"has to end in \.gif"):
            drawing(2, 2, 2, 2, 1).animate(f"{tmp_path}/{place}")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        drawing(2, 2, 2, 2, 1).animate(tmp_path / "file" / "it.gif")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
