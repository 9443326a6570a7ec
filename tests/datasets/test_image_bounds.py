"""Images that expand, claim or would start other programs: refused from their headers, in little memory, and skipped if asked."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from rarkit.datasets import preparation
from rarkit.datasets.image_bounds import FORMATS, LARGEST_FILE, check_bounds
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.image_listing import SUFFIXES
from rarkit.datasets.preparation import Preparation, load_rgb
from rarkit.datasets.transparency import laid_on
from rarkit.errors import DatasetError, ImageError, RarkitWarning
from tests.limits import refusal

SMALL = Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of so many pixels, by its header."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def skipping_bmp() -> bytes:
    """A run-length encoded BMP of one row, a few bytes of which skip 255 rows."""
    data = b"\x00\x02\xff\xff" * 8 + b"\x00\x01"
    header = struct.pack("<IiiHHIIiiII", 40, 60_000_000, 1, 1, 8, 1, len(data), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + header + bytes(1024) + data


def tiled_tiff() -> bytes:
    """A TIFF of 4 × 4 pixels in one compressed tile of 60,000 × 60,000."""
    data = zlib.compress(bytes(1000))
    tags = {256: 4, 257: 4, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 200, 325: len(data)}
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\x00" + struct.pack("<I", 8) + directory + bytes(4)).ljust(200, b"\0") + data


def long_text() -> bytes:
    about = PngImagePlugin.PngInfo()
    about.add_text("comment", "0" * 2**21, zip=True)
    return encoded(SMALL, pnginfo=about)


def many_scans() -> bytes:
    return encoded(Image.new("L", (2000, 2000)), "JPEG", progressive=True) + b"\xff\xda" * 4300


def scans_of_one_channel() -> bytes:
    """A JPEG that is not progressive, with each channel in a scan of its own, and the first of them again and again."""
    whole = encoded(Image.new("RGB", (16, 16)), "JPEG", subsampling=0)
    before, size = bytearray(whole[: whole.index(b"\xff\xda")]), whole.index(b"\xff\xc0") + 5
    before[size : size + 4] = struct.pack(">HH", 3000, 3000)
    scans = [b"\xff\xda" + struct.pack(">HB", 8, 1) + bytes([channel, 0, 0, 63, 0]) + bytes(8) for channel in (1, 2, 3)]
    return bytes(before) + b"".join(scans) + scans[0] * 2000


def short_lines() -> bytes:
    """A run-length encoded BMP each of whose 11,000 lines ends after a pixel."""
    data = b"\x01\x05\x00\x00" * 11_000
    header = struct.pack("<IiiHHIIiiII", 40, 11_000, 11_000, 1, 8, 1, len(data), 1, 1, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(data), 0, 0, 54 + 1024) + header + bytes(1024) + data


def in_pieces() -> bytes:
    """A PNG with 300,000 empty chunks, which each take two reads or more."""
    whole = encoded(SMALL)
    empty = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return whole[:33] + empty * 300_000 + whole[33:]


def padded_jpeg() -> bytes:
    whole = encoded(SMALL, "JPEG")
    return whole[:2] + b"\xff" * 2**20 + whole[2:]


def huge_frame() -> bytes:
    return encoded(SMALL, "GIF").replace(struct.pack("<HHHH", 0, 0, 6, 6), struct.pack("<HHHH", 0, 0, 65535, 65535))


HOSTILE = {
    "a line": (
        lambda: encoded(Image.new("L", (1, 60_000))),
        r"has 1 × 60,000 pixels, which take 14\.7 GiB to decode and to resize to 256",
    ),
    "a line across": (lambda: encoded(Image.new("L", (60_000, 1))), "has 60,000 × 1 pixels"),
    "pixels": (lambda: claiming(60_000, 60_000), r": Image size \(3600000000 pixels\) exceeds .* Make it smaller, or remove it"),
    "pixels that Pillow allows": (lambda: claiming(13_000, 13_000), r"has 13,000 × 13,000 pixels, which take 1\.3 GiB"),
    "rows that are skipped": (skipping_bmp, "has 60,000,000 × 1 pixels"),
    "a tile": (tiled_tiff, r"has 4 × 4 pixels, which take 26\.8 GiB"),
    "a frame": (huge_frame, r": Image size \(4294836225 pixels\)"),
    "scans": (many_scans, r"has 2,000 × 2,000 pixels in 4,3\d\d scans"),
    "scans of one channel": (scans_of_one_channel, r"has 3,000 × 3,000 pixels in 2,003 scans"),
    "lines that end early": (short_lines, "has 11,000 × 11,000 pixels in a kind of BMP"),
    "levels": (lambda: b"P5 3000 3000 254\n" + bytes(9_000_000), "has 3,000 × 3,000 pixels in a kind of PPM"),
    "numbers as text": (lambda: b"P2 3000 3000 255\n" + b"1 " * 9_000_000, "has 3,000 × 3,000 pixels in a kind of PPM"),
    "a comment": (lambda: b"P5\n#" + b"a" * 2**20 + b"\n4 4 255\n" + bytes(16), "it is in more than 524,288 pieces"),
    "chunks": (in_pieces, "it is in more than 524,288 pieces"),
    "padding": (padded_jpeg, "it is in more than 524,288 pieces"),
    "text": (long_text, "cannot be read as an image: ValueError: Decompressed data too large"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("what", HOSTILE)
def test_images_that_expand_are_refused(what):
    make, message = HOSTILE[what]
    data = make()
    for read in (Preparation(256), Preparation(256).check):
        assert re.match(rf"n01/1\.png \([\d,]+ bytes\).*{message}", refusal(lambda read=read: read(data, "n01/1.png")))


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "IM", "DDS", "ICNS", "JPEG2000", "AVIF"])
def test_other_formats_do_not_reach_their_decoders(kind, monkeypatch):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("this Pillow does not write it")
    data = encoded(Image.new("RGB", (32, 32)), kind)
    for name, (_, accept) in list(Image.OPEN.items()):
        if name not in FORMATS:
            monkeypatch.setitem(Image.OPEN, name, (lambda *_, name=name: pytest.fail(f"{name} was opened"), accept))
    with pytest.raises(
        ImageError, match=r"a\.jpg .* cannot be read as an image: it is none of PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM\."
    ):
        load_rgb(data, "a.jpg")


def test_formats_are_those_of_the_suffixes():
    Image.init()
    assert {Image.EXTENSION[suffix] for suffix in SUFFIXES} == {*FORMATS}


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_bands_give_the_bits_of_the_whole(data):
    mode = data.draw(st.sampled_from(["RGBA", "LA", "P", "I;16", "1", "CMYK"]))
    width, height = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    levels = np.random.default_rng(width * height).integers(0, 2**16, (height, width), dtype=np.uint16)
    image = Image.fromarray(levels) if mode == "I;16" else Image.fromarray(levels.astype(np.uint8)).convert(mode)
    if data.draw(st.booleans()) and mode in ("P", "I;16"):
        image.info["transparency"] = int(levels[0, 0]) if mode == "I;16" else 0
    options = {"transparency": image.info["transparency"]} if "transparency" in image.info else {}
    file = encoded(image, "TIFF" if mode == "CMYK" else "PNG", **options)
    whole = Preparation(4, background=(7, 200, 30))(file, "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparation, "BAND", data.draw(st.integers(1, 20)))
        parts = Preparation(4, background=(7, 200, 30))(file, "parts")
    np.testing.assert_array_equal(parts[0], whole[0])
    assert parts[1] == whole[1]


def test_colours_are_mixed_exactly():
    pixels = np.stack(np.meshgrid(*[np.arange(256, dtype=np.uint8)] * 2), axis=-1)[..., [0, 0, 0, 1]]
    opacity = pixels[..., 3:].astype(int)
    for background in ((0, 0, 0), (255, 3, 128)):
        expected = (pixels[..., :3] * opacity + np.array(background) * (255 - opacity) + 127) // 255
        np.testing.assert_array_equal(laid_on(pixels, background), expected)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 512))
def test_photographs_and_panoramas_are_not_refused(width, height, size):
    assume(width * height < 130_000_000 and max(width, height) * size**2 < min(width, height) * 2**26)
    with Image.open(io.BytesIO(claiming(width, height))) as image:
        check_bounds(image, size, b"", "usual")


@pytest.fixture
def folder(tmp_path):
    """Four photographs, and what only looks like some."""
    here = tmp_path / "data/train/cat"
    here.mkdir(parents=True)
    for number in range(4):
        (here / f"{number}.png").write_bytes(encoded(SMALL))
    os.mkfifo(here / "pipe.png")
    (here / "endless.png").symlink_to("/dev/zero")
    (here / "line.png").write_bytes(encoded(Image.new("L", (1, 60_000))))
    (here / "script.jpg").write_bytes(encoded(SMALL, "EPS"))
    with open(here / "sparse.png", "wb") as file:
        file.truncate(30 << 30)
    return tmp_path / "data"


BAD = {
    "endless.png": "is a device, not a regular file",
    "line.png": "has 1 × 60,000 pixels",
    "pipe.png": "is a named pipe, not a regular file",
    "script.jpg": "it is none of PNG, JPEG",
    "sparse.png": f"has 32,212,254,720 bytes, where at most {LARGEST_FILE:,} bytes are read",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_an_error_that_names_it(folder, name):
    for other in BAD.keys() - {name}:
        (folder / "train/cat" / other).unlink()
    dataset = ImageFolder(path=str(folder), size=256, test="", workers=0)
    told = refusal(lambda: dataset.open("train").read())
    assert re.search(rf"train/cat/{name} .*{BAD[name]}", told), told


def test_bad_files_are_skipped_if_asked(folder):
    dataset = ImageFolder(path=str(folder), size=256, test="", on_bad_image="skip", workers=0)
    with pytest.warns(
        RarkitWarning, match=r"5 of 9 images are skipped.*\n.*endless\.png.*\n.*line\.png.*\n.*pipe\.png.*\n.*2 more"
    ):
        assert len(dataset.open("train")) == 4
    for path in (folder / "train/cat").glob("[0-9].png"):
        path.unlink()
    with pytest.raises(DatasetError, match="none of the 5 images can be decoded"):
        ImageFolder(path=str(folder), size=256, test="", on_bad_image="skip", workers=0).open("train")


def test_what_is_skipped_is_in_the_fingerprint_where_images_are(folder):
    plain, skipping = (ImageFolder(path=str(folder), test="", on_bad_image=what) for what in ("error", "skip"))
    assert "decoding" not in plain.content()
    assert skipping.content() == {**plain.content(), "decoding": 3}
