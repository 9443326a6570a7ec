"""Shards that claim what they do not hold: refused before it is read or skipped, in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import tracemalloc

import pytest
from PIL import Image

from rarkit.datasets import webdataset
from rarkit.datasets.shards import MOST_SHARDS, expanded, samples
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import DatasetError, ImageError, RarkitWarning
from rarkit.files.tar_members import LARGEST_HEADER
from tests.limits import refusal

pytest.importorskip("webdataset")
HUGE = 30 << 30


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE, **fields) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    for field, value in fields.items():
        setattr(member, field, value)
    return member.tobuf(tarfile.GNU_FORMAT if kind != tarfile.REGTYPE or not fields else tarfile.PAX_FORMAT)


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    return header(name, len(data), kind) + data.ljust(-(-len(data) // 512) * 512, b"\0")


def sparse(name: str, size: int) -> bytes:
    """A file of 512 bytes and ``size`` bytes of holes, as GNU tar writes it."""
    block = bytearray(header(name, 512, tarfile.GNUTYPE_SPARSE))
    block[386:410] = tarfile.itn(size - 512, 12, tarfile.GNU_FORMAT) + tarfile.itn(512, 12, tarfile.GNU_FORMAT)
    block[483:495] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(512)


def pax(**values: str) -> bytes:
    lines = b""
    for key, value in values.items():
        line = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(line) + 2 if len(line) < 98 else len(line) + 3
        lines += str(length).encode() + line
    return member("pax", lines, tarfile.XHDTYPE)


GOOD = member("0.png", png()) + member("0.cls", b"1")
END = bytes(1024)
HOSTILE = {
    "a claim": (GOOD + header("1.png", HUGE), r"ends at byte 32,2\d\d,\d\d\d,\d\d\d, in a file of"),
    "a label that is a claim": (GOOD + member("1.png", png()) + header("1.cls", HUGE), "ends at byte"),
    "an extended header": (GOOD + header("x", 4 << 30, tarfile.XHDTYPE) + bytes(512), "an extended header of 4,294,967,296 bytes"),
    "a long name": (GOOD + header("x", 4 << 30, tarfile.GNUTYPE_LONGNAME) + bytes(512), "an extended header of"),
    "compressed": (gzip.compress(GOOD + header("1.png", HUGE) + bytes(2**20)), "ends at byte"),
    "compressed as much as can be": (
        bz2.compress(GOOD + header("1.mp4", 1 << 29) + bytes(1 << 29) + member("1.png", png()) + END),
        r"ends at byte 536,87\d,\d\d\d, in a file of",
    ),
    "cut off": (bz2.compress(GOOD * 1000)[:-50], "is damaged or not a shard"),
    "no gzip": (gzip.compress(GOOD + END)[:20] + bytes(1000), "is damaged or not a shard"),
    "headers of headers": (b"".join([member("x", b"9 a=b123\n"[:9], tarfile.XGLTYPE)] * 2000) + GOOD + END, "RecursionError"),
    "a sparse image": (GOOD + sparse("1.png", HUGE) + member("1.cls", b"1") + END, r"1\.png is a sparse file"),
    "a sparse image, newer": (
        GOOD
        + pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize=str(HUGE))
        + member("1.png", b"1\n0\n9\n")
        + member("1.cls", b"1")
        + END,
        r"1\.png is a sparse file",
    ),
    "a sparse label": (GOOD + member("1.png", png()) + sparse("1.cls", HUGE) + END, r"1\.cls is a sparse file"),
    "a large label": (
        GOOD + member("1.png", png()) + member("1.cls", bytes(LARGEST_HEADER + 1)) + END,
        "has 1,048,577 bytes, where at most",
    ),
    "a number of digits": (member("0.png", png()) + member("0.cls", b"9" * 5000) + END, "should be a whole number, but is '9999"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_shards_that_claim_are_refused(tmp_path, what):
    data, message = HOSTILE[what]
    assert len(data) < 3_000_000
    (tmp_path / "a.tar").write_bytes(data)
    dataset = WebDataset(urls=str(tmp_path / "a.tar"), num_classes=2, size=8, workers=0)
    told = refusal(lambda: dataset.open("train").read())
    assert re.search(rf"a\.tar.*{message}", told), told


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_shards_are_read_in_little_memory(tmp_path, compress):
    """What is passed over is not expanded at once."""
    shard = compress(GOOD + member("0.mp4", bytes(60 << 20)) + member("1.png", png()) + member("1.cls", b"0") + END)
    (tmp_path / "a.tar").write_bytes(shard)
    peak = 0
    for sample in samples(str(tmp_path / "a.tar"), {"png": 1000, "cls": 1000}):
        tracemalloc.start() if not tracemalloc.is_tracing() else None
        peak, read = max(peak, tracemalloc.get_traced_memory()[1]), sample
    tracemalloc.stop()
    assert (read["cls"], read["png"], peak < 5e6) == (b"0", png(), True)


def test_sparse_images_are_skipped_if_asked(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + sparse("1.png", HUGE) + member("1.cls", b"1") + END)
    dataset = WebDataset(urls=str(tmp_path / "a.tar"), num_classes=2, size=8, workers=0, on_bad_image="skip")
    with pytest.warns(RarkitWarning, match=r"1 of 2 images are skipped.*\n.*1\.png is a sparse file"):
        assert len(dataset.open("train").read().labels_N) == 1


def test_what_is_not_read_may_be_large(tmp_path, monkeypatch):
    """A video beside each image is passed over, not read."""
    monkeypatch.setattr(webdataset, "LARGEST_FILE", 1000)
    (tmp_path / "a.tar").write_bytes(GOOD + member("0.mp4", bytes(2000)) + member("1.png", png()) + member("1.cls", b"0") + END)
    dataset = WebDataset(urls=str(tmp_path / "a.tar"), num_classes=2, size=8, workers=0)
    assert dataset.open("train").read().labels_N.tolist() == [1, 0]
    (tmp_path / "a.tar").write_bytes(GOOD + member("1.png", bytes(2000)) + member("1.cls", b"0") + END)
    with pytest.raises(ImageError, match=r"a\.tar: 1\.png has 2,000 bytes, where at most 1,000 are read"):
        dataset.model_copy().open("train").read()


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..999999999}.tar",
        "{0..9999999999999999999999}.tar",
        "{000..999}{000..999}{000..999}.tar",
        "{" + "9" * 5000 + "..1}",
        "::".join(["{0..1048575}.tar"] * 1000),
    ],
)
def test_patterns_stand_for_a_number_of_shards(pattern):
    assert f"more than {MOST_SHARDS:,} shards" in refusal(lambda: expanded(pattern))
    assert len(expanded("{000..999}{00..09}.tar")) == 10_000


def test_numbers_of_samples_are_bounded(tmp_path):
    (tmp_path / "a.tar").write_bytes(GOOD + END)
    for text in ('{"a.tar": 9000000000000000000000}', "[" * 100_000, '{"a.tar": -1}'):
        (tmp_path / "sizes.json").write_text(text)
        dataset = WebDataset(urls=str(tmp_path / "a.tar"), sizes=str(tmp_path / "sizes.json"), num_classes=2)
        with pytest.raises(DatasetError, match=r"sizes\.json should contain the number of samples"):
            dataset.count("train")
