"""Arrays in files: what NumPy writes comes back, and what is no array of images is refused by name."""

from __future__ import annotations

import io
import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rarkit.datasets.npz import Npz
from rarkit.errors import DatasetError
from rarkit.testing import DatasetSuite


def drawn(count: int, shape=(5, 4, 3), seed: int = 0, classes: int = 6):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, *shape), dtype=np.uint8), generator.permutation(np.arange(count) % classes)


@pytest.fixture
def file(tmp_path):
    def write(name: str = "a.npz", **members) -> str:
        np.savez(tmp_path / name, **members)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("named", [True, False])
@given(data=st.data())
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_saved_comes_back(tmp_path, save, named, data):
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3, st.sampled_from([1, 3])))
    images = data.draw(arrays(np.uint8, shape))
    labels = data.draw(arrays(data.draw(st.sampled_from([np.int64, np.uint8, np.int32])), shape[:1], elements=st.integers(0, 9)))
    if named:
        save(tmp_path / "x.npz", labels=labels, images=images, more=np.zeros(2))
    else:
        save(tmp_path / "x.npz", images, labels)
    dataset = Npz(path=str(tmp_path / "x.npz"))
    info = dataset.info()
    assert (info.height, info.width, info.channels) == shape[1:]
    assert info.class_names == tuple(str(label) for label in range(labels.max() + 1))
    block = dataset.open("train").read()
    np.testing.assert_array_equal(block.images_NHWC, images)
    np.testing.assert_array_equal(block.labels_N, labels)


class TestSuite(DatasetSuite):
    parts = ()

    @pytest.fixture(autouse=True)
    def planted_parts(self, file):
        (train, labels), (test, test_labels) = drawn(40), drawn(9, seed=1)
        places = file(images=train, labels=labels), file("b.npz", images=test, labels=test_labels)
        type(self).parts = (Npz(path=places[0], test_path=places[1]), Npz(path=places[1], class_names=tuple("abcdefg")))


def test_in_memory():
    images, labels = drawn(7)
    written = io.BytesIO()
    np.savez(written, x=images, y=labels)
    fsspec.filesystem("memory").pipe_file("/arrays.npz", written.getvalue())
    block = Npz(path="memory://arrays.npz", images="x", labels="y").open("train").read(2, 5)
    np.testing.assert_array_equal(block.images_NHWC, images[2:5])
    np.testing.assert_array_equal(block.labels_N, labels[2:5])


IMAGES, LABELS = drawn(6)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"images": IMAGES}, "has no array labels or arr_1; its arrays are: images. Set labels"),
        ({"labels": LABELS}, "has no array images or arr_0; its arrays are: labels. Set images"),
        ({}, "its arrays are: none"),
        ({"images": IMAGES / 255, "labels": LABELS}, "array images is float64 6 × 5 × 4 × 3; images must be uint8"),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "int64"),
        ({"images": IMAGES[0], "labels": LABELS}, "5 × 4 × 3; images must"),
        ({"images": IMAGES.transpose(0, 3, 1, 2), "labels": LABELS}, "6 × 3 × 5 × 4; images must"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "0 × 5 × 4 × 3; images must"),
        (
            {"images": IMAGES, "labels": LABELS[:5]},
            "array labels is int64 5; labels must be whole numbers, one for each of the 6 images",
        ),
        ({"images": IMAGES, "labels": LABELS[:, None]}, "6 × 1; labels must"),
        ({"images": IMAGES, "labels": LABELS / 2}, "float64 6; labels must"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels range from -1 to 4"),
        ({"images": IMAGES, "labels": np.full(6, 2**64 - 1, np.uint64)}, "they must start at 0"),
        ({"images": IMAGES, "labels": np.array(["a"] * 6)}, "labels must be whole numbers"),
        ({"images": IMAGES, "labels": np.array([{}] * 6)}, "object 6; labels must be whole numbers"),
        ({"images": np.array([[{}]]), "labels": LABELS}, "object 1 × 1; images must"),
    ],
)
def test_what_is_no_array_of_images(file, members, said):
    place = file(**members)
    with pytest.raises(DatasetError, match=rf"a\.npz.*{said}"):
        Npz(path=place).info()
    with pytest.raises(DatasetError, match=said):
        Npz(path=place).open("train")


def test_test_images_must_be_like_training_images(file):
    train = file(images=IMAGES, labels=LABELS)
    smaller = file("b.npz", images=IMAGES[:, 1:], labels=LABELS)
    with pytest.raises(DatasetError, match=r"b\.npz: its images are 4 × 4 × 3, but those of .*a\.npz are 5 × 4 × 3"):
        Npz(path=train, test_path=smaller).open("test")
    stranger = file("c.npz", images=IMAGES, labels=LABELS + 4)
    with pytest.raises(DatasetError, match=r"c\.npz has the label 9, but the 6 classes are 0 to 5"):
        Npz(path=train, test_path=stranger).open("test")
    with pytest.raises(DatasetError, match="the label 5, but the 2 classes"):
        Npz(path=train, class_names=("a", "b")).open("train")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@given(share=st.floats(0, 0.999))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncated_files_are_named(tmp_path, save, share):
    path = tmp_path / "cut.npz"
    save(path, images=IMAGES, labels=LABELS)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"cut\.npz is truncated, damaged or not an \.npz file"):
        Npz(path=str(path)).open("train")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("key", ["images", "labels"])
def test_flipped_bits_are_found(tmp_path, save, key):
    path = tmp_path / "flipped.npz"
    save(path, images=IMAGES, labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{key}.npy")
    data = bytearray(path.read_bytes())
    data[member.header_offset + member.compress_size] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"flipped\.npz: array {key} is damaged"):
        Npz(path=str(path)).open("train")


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        header = archive.read("images.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header[:8] + b"not a header" * 9)
        archive.writestr("labels.npy", b"\x80\x04")
    with pytest.raises(DatasetError, match="is damaged or not an array of numbers"):
        Npz(path=str(path)).info()


def test_what_is_not_there(file):
    with pytest.raises(DatasetError, match=r"there is no .*nowhere\.npz"):
        Npz(path="nowhere.npz").info()
    dataset = Npz(path=file(images=IMAGES, labels=LABELS))
    assert dataset.splits() == ("train",)
    with pytest.raises(DatasetError, match="no test split"):
        dataset.open("test")


def test_the_fingerprint_follows_the_pixels(file):
    before = Npz(path=file(images=IMAGES, labels=LABELS)).identity()
    assert Npz(path=file(labels=LABELS, images=IMAGES, more=LABELS)).identity() == before
    changed = IMAGES.copy()
    changed[3, 2, 1, 0] ^= 1
    assert Npz(path=file(images=changed, labels=LABELS)).identity() != before
    assert Npz(path=file(images=IMAGES, labels=LABELS[::-1])).identity() != before
