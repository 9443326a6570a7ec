"""Crops and decoding: the published numbers, odd sizes, and every kind of file that a folder of photographs may hold."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from rarkit.datasets.preparation import Preparation, centre_crop, load_rgb, random_crops, ten_crop
from rarkit.errors import DatasetError

PARITY = Path(__file__).parents[1] / "data/parity/crops.npz"
SIDE = st.integers(1, 150)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(ours, theirs) -> int:
    return int(np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int)).max())


@pytest.mark.parametrize("number", range(4))
def test_published_crops(number):
    with np.load(PARITY) as known:
        image = Image.fromarray(known[f"image_{number}"])
        centre, ten = known[f"center_crop_64_{number}"], known[f"ten_crop_64_{number}"]
    # Pillow 13 resizes tall images in height first, older ones in width. Values are cut off at 0 and 255 in between, which matters
    # in noise like that of these images.
    tolerance = 0 if PIL.__version__.startswith("13.") else 13
    assert difference(centre_crop(image, 64), centre) <= tolerance
    assert difference(np.stack([np.asarray(view) for view in ten_crop(image, 64)]), ten) <= tolerance


@given(SIDE, SIDE, st.integers(1, 40))
@example(1, 150, 40)
@settings(deadline=None, max_examples=60)
def test_any_size_gives_squares(width, height, size):
    image = picture(width, height)
    assert centre_crop(image, size).size == (size, size)
    assert [view.size for view in ten_crop(image, size)] == [(size, size)] * 10


@given(st.integers(2, 60), st.integers(0, 60), st.booleans())
@settings(deadline=None, max_examples=40)
def test_no_resizing_where_the_short_side_fits(size, excess, wide):
    image = picture(size + excess, size) if wide else picture(size, size + excess)
    start = excess // 2
    pixels = np.asarray(image)
    expected = pixels[:, start : start + size] if wide else pixels[start : start + size]
    np.testing.assert_array_equal(centre_crop(image, size), expected)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_halving_is_the_mean_of_four(size, wider, seed):
    """At twice the size the box filter does everything: each pixel is the mean of four, rounded across and then down."""
    image = picture(2 * (size + wider), 2 * size, seed)
    means = np.asarray(image).astype(float).reshape(size, 2, size + wider, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.asarray(centre_crop(image, size)) - means[:, wider // 2 :][:, :size]).max() <= 1


@given(SIDE.filter(lambda side: side > 3), SIDE.filter(lambda side: side > 3), st.integers(10, 40))
@settings(deadline=None, max_examples=30)
def test_ten_crops_are_windows_of_the_wider_crop_and_its_mirror(width, height, size):
    image = picture(width, height)
    wide = int(size * 1.1)
    whole = np.asarray(centre_crop(image, wide))
    far, middle = wide - size, round((wide - size) / 2)
    views = [np.asarray(view) for view in ten_crop(image, size)]
    offsets = [(0, 0), (0, far), (far, 0), (far, far), (middle, middle)]
    for side, pixels in enumerate((whole, whole[:, ::-1])):
        for number, (top, left) in enumerate(offsets):
            np.testing.assert_array_equal(views[5 * side + number], pixels[top : top + size, left : left + size])


def test_imagenets_numbers():
    """At 256: the wider crop is 281, the middle begins at 12 (12.5 rounds to even)."""
    image = picture(281, 281)
    np.testing.assert_array_equal(ten_crop(image, 256)[4], np.asarray(image)[12:268, 12:268])


def test_grey_is_repeated():
    grey = picture(5, 7).convert("L")
    for image in (grey, grey.convert("LA")):  # the latter opaque
        np.testing.assert_array_equal(load_rgb(encoded(image), "grey"), np.repeat(np.asarray(grey)[..., None], 3, axis=2))


def test_one_bit_is_black_and_white():
    image = picture(9, 9).convert("1")
    np.testing.assert_array_equal(np.asarray(load_rgb(encoded(image), "fax"))[..., 0], np.asarray(image) * np.uint8(255))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 16))], ids=["opaque", "one colour", "levels"])
def test_palettes_give_their_colours_and_no_warning(transparency):
    image = picture(20, 11).quantize(16)
    options = {} if transparency is None else {"transparency": transparency}
    colours = np.asarray(image.getpalette(), dtype=np.uint8).reshape(-1, 3)
    opacity = np.full(len(colours), 255.0)
    if transparency is not None:
        opacity[:16] = [0 if index == transparency else 255 for index in range(16)] if transparency == 3 else [*transparency]
    laid = np.round((colours * opacity[:, None] + 255 * (255 - opacity[:, None])) / 255).astype(np.uint8)
    np.testing.assert_array_equal(load_rgb(encoded(image, **options), "palette"), laid[np.asarray(image)])
    np.testing.assert_array_equal(load_rgb(encoded(image, "GIF"), "gif"), colours[np.asarray(image)])


@given(arrays(np.uint8, (3, 4, 4)), st.tuples(*[st.integers(0, 255)] * 3), st.sampled_from(["PNG", "WEBP", "TIFF"]), st.booleans())
@settings(deadline=None, max_examples=40)
def test_transparency_is_laid_on_the_background(pixels_HWA, background, kind, ten):
    opacity = pixels_HWA[..., 3:] / 255
    expected = np.round(pixels_HWA[..., :3] * opacity + np.array(background) * (1 - opacity)).astype(np.uint8)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(pixels_HWA), kind, **options)
    np.testing.assert_array_equal(load_rgb(data, "ghost", background=background), expected)
    views, transparent = Preparation(3, background=background, crop="ten" if ten else "centre")(data, "ghost")
    assert transparent == bool((pixels_HWA[..., 3] < 255).any())
    if not ten:
        np.testing.assert_array_equal(views[0], centre_crop(Image.fromarray(expected), 3))


@pytest.mark.parametrize(
    ("pixels", "mode", "transparency", "expected"),
    [
        (np.array([[0, 9]], np.uint8), "L", 9, [[0] * 3, [255] * 3]),
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), "RGB", (4, 5, 6), [[1, 2, 3], [255] * 3]),
        (np.array([[513, 40000]], np.uint16), "I;16", 40000, [[2] * 3, [255] * 3]),
    ],
)
def test_one_transparent_colour(pixels, mode, transparency, expected):
    image = Image.fromarray(pixels)
    assert image.mode == mode
    data = encoded(image, transparency=transparency)
    np.testing.assert_array_equal(load_rgb(data, "logo"), [expected])
    assert Preparation(1)(data, "logo")[1]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert difference(load_rgb(encoded(flat, kind), "print"), np.full((16, 16, 3), (255, 0, 0))) <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_upper_byte(kind):
    levels = np.array([[0, 255, 256, 1000, 32768, 65535]], dtype=np.uint16)
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(load_rgb(encoded(Image.fromarray(levels), kind), "scan"), expected)


def test_sixteen_bits_a_channel_keep_the_upper_byte():
    levels_HWC = np.array([[[0, 255, 256], [1000, 32768, 65535]]], dtype=">u2")
    lines = b"".join(b"\0" + row.tobytes() for row in levels_HWC)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    np.testing.assert_array_equal(np.asarray(load_rgb(data, "scan.png")), levels_HWC >> 8)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_frames_or_pages_the_first_is_read(kind):
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    data = encoded(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as several:
        assert several.n_frames == 2
    assert difference(load_rgb(data, "several"), first) == 0


@pytest.mark.parametrize("pixels", [np.array([[0, 70000]], np.int32), np.array([[-1, 5]], np.int32), np.array([[0.5]], np.float32)])
def test_pixels_without_a_known_range_are_refused(pixels):
    with pytest.raises(DatasetError, match=r"map\.tif .*cannot be read.*(16 bits|range is not known)"):
        load_rgb(encoded(Image.fromarray(pixels), "TIFF"), "map.tif")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turns_only_where_asked(kind):
    upright = np.asarray(Image.linear_gradient("L").resize((40, 24)).convert("RGB"))
    orientation = Image.Exif()
    orientation[0x0112] = 6
    data = encoded(Image.fromarray(upright), kind, exif=orientation, **({"quality": 100} if kind == "JPEG" else {}))
    assert difference(load_rgb(data, "phone"), upright) <= 2
    assert difference(load_rgb(data, "phone", exif=True), np.rot90(upright, -1)) <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@given(share=st.floats(0, 0.9))
@settings(deadline=None, max_examples=25)
def test_truncated_files_are_named(kind, share):
    data = encoded(picture(40, 30), kind)
    with pytest.raises(DatasetError, match=r"^n01/cut\.jpg \(.* bytes\) cannot be read as an image: .*[Ff]etch it again") as caught:
        load_rgb(data[: int(len(data) * share)], "n01/cut.jpg")
    assert "0x" not in str(caught.value)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=50)
def test_rubbish_is_named(data):
    with pytest.raises(DatasetError, match=r"^noise "):
        load_rgb(b"\x00" + data, "noise")


def test_a_preparation_is_decoding_and_cropping():
    image = picture(50, 37)
    centre, ten = Preparation(16), Preparation(16, "ten")
    assert (centre.views, ten.views) == (1, 10)
    np.testing.assert_array_equal(centre(encoded(image), "x")[0], np.asarray(centre_crop(image, 16))[None])
    np.testing.assert_array_equal(ten(encoded(image), "x")[0], np.stack([np.asarray(view) for view in ten_crop(image, 16)]))


CHANCE = st.floats(0, 1, exclude_max=True)


@given(SIDE, SIDE, st.integers(1, 40), st.tuples(CHANCE, CHANCE, CHANCE), st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)))
@example(1, 150, 40, (0.0, 0.999, 0.999), (0.05, 0.05))
@example(8, 13, 1, (0.0, 0.0, 0.0), (1.0, 1.0))
@settings(deadline=None, max_examples=60)
def test_a_random_crop_lies_in_the_image_and_has_the_side_asked_for(width, height, size, chance, scale):
    # Pixels that say where they lie: bicubic resizing keeps a slope.
    x_HW, y_HW = np.meshgrid(np.arange(width), np.arange(height))
    image = Image.fromarray(np.dstack([x_HW, y_HW, np.full_like(x_HW, 77)]).astype(np.uint8))
    least, greatest = sorted(scale)
    [crop] = random_crops(image, size, (least, greatest), np.array([chance]))
    red, green, blue = np.moveaxis(np.asarray(crop).astype(float), -1, 0)
    assert crop.size == (size, size)
    assert (blue == 77).all()
    side = (least + chance[0] * (greatest - least)) * min(width, height)
    for found_HW, excess, whole in ((red.T, chance[1], width), (green, chance[2], height)):
        middle = excess * (whole - side) + side / 2 - 0.5
        # Levels are whole, and at an edge the filter sees less of one side.
        assert abs(found_HW.mean() - middle) <= 1 + side / (2 * size)


def test_a_random_crop_of_all_there_is_is_the_centre_crop():
    image = picture(64, 64)
    assert difference(random_crops(image, 48, (1.0, 1.0), np.zeros((1, 3)))[0], centre_crop(image, 48)) == 0
    assert (
        difference(random_crops(image, 16, (1.0, 1.0), np.ones((1, 3)) / 2)[0], centre_crop(image, 16)) <= 2
    )  # halved twice, rounded twice


def test_random_crops_depend_on_seed_and_number_alone():
    data = encoded(picture(40, 31))

    def crops(number=3, count=4, **more):
        how = {"random_crops": count, "crop_scale": (0.5, 1.0), "crop_seed": 1} | more
        return Preparation(12, **how)(data, "a", number)[0]

    first = crops()
    np.testing.assert_array_equal(crops(count=6)[:4], first)
    assert len({view.tobytes() for view in first}) == 4
    for other in (crops(4), crops(crop_seed=2), crops(crop_scale=(0.4, 1.0))):
        assert (other != first).any()
    np.testing.assert_array_equal(crops(flip=True), np.concatenate([first, first[:, :, ::-1]]))
    assert Preparation(12, random_crops=4, flip=True).views == 8
