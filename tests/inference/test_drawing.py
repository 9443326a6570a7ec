"""Saving drawings: the path's suffix selects the format, and paths that cannot be written are refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rarkit.errors import StoreError, UserError
from rarkit.inference.drawing import Drawing
from rarkit.sampling.settings import SampleSettings


@pytest.fixture
def drawing():
    random = np.random.default_rng(0)
    return Drawing(
        images_NHWC=random.integers(0, 256, (4, 6, 6, 1), dtype=np.uint8),
        labels_N=np.array([7, 7, 2, 2]),
        tokens_NL=np.zeros((4, 9), np.int64),
        classes=(7, 2),
        class_names=("seven", "two"),
        per_class=2,
        grid=(3, 3),
        order_L=random.permutation(9),
        seed=0,
        scan_order={"name": "random"},
        settings=SampleSettings(),
    )


def test_the_suffix_says_what_is_written(drawing, tmp_path):
    assert drawing.save(tmp_path / "deep/grid.PNG") == [str(tmp_path / "deep/grid.PNG")]
    assert Image.open(tmp_path / "deep/grid.PNG").format == "PNG"
    assert drawing.save(tmp_path / "arrays.npz") == [str(tmp_path / "arrays.npz")]
    with np.load(tmp_path / "arrays.npz") as arrays:
        # Classes in turn: evaluators take consecutive images together, for the inception score.
        np.testing.assert_array_equal(arrays["arr_0"], drawing.images_NHWC[[2, 0, 3, 1]].repeat(3, axis=-1))
        np.testing.assert_array_equal(arrays["arr_1"], drawing.labels_N[[2, 0, 3, 1]])
    names = ["007-seven-0000.png", "007-seven-0001.png", "002-two-0000.png", "002-two-0001.png"]
    assert drawing.save(tmp_path / "folder") == [str(tmp_path / "folder" / name) for name in names]
    assert drawing.animate(tmp_path / "deep/it.gif") == [str(tmp_path / "deep/it.gif")]
    assert Image.open(tmp_path / "deep/it.gif").n_frames == 10


def test_what_cannot_be_written_is_refused(drawing, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("it.png", "folder/"):
        with pytest.raises(UserError, match=r"has to end in \.gif"):
            drawing.animate(f"{tmp_path}/{place}")
    with pytest.raises(UserError, match=r"has to end in \.png or \.npz, or a folder"):
        drawing.save(tmp_path / "it.jpg")
    for write in (lambda: drawing.save(tmp_path / "file/it.png"), lambda: drawing.animate(tmp_path / "file/it.gif")):
        with pytest.raises(StoreError, match="cannot be written"):
            write()
    for nowhere in (None, 3, "", b"it.png"):
        for write in (drawing.save, drawing.animate):
            with pytest.raises(UserError, match=r"path is .*; pass the path of a file or folder"):
                write(nowhere)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
