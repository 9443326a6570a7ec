"""PNG files hold what was drawn, one of them or a folder full."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from rarkit.rendering.png import png_bytes, write_png, write_pngs


def test_a_png_is_written_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "samples.png"
    for colour in ((1, 2, 3), (4, 5, 6)):
        picture = Image.new("RGB", (3, 2), colour)
        write_png(picture, path)
        assert path.read_bytes() == png_bytes(picture)
        assert Image.open(path).getpixel((2, 1)) == colour
        assert [child.name for child in path.parent.iterdir()] == ["samples.png"]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_holds_each_image_under_its_class_and_number(tmp_path, channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, channels), dtype=np.uint8)
    paths = write_pngs(images, (207, 9), ("golden retriever", "a/b (c)"), tmp_path / "drawn")
    assert [path.name for path in paths] == [
        "207-golden-retriever-0000.png",
        "207-golden-retriever-0001.png",
        "009-a-b-c-0000.png",
        "009-a-b-c-0001.png",
    ]
    assert sorted((tmp_path / "drawn").iterdir()) == sorted(paths)
    for path, image in zip(paths, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(image.shape), image)
