"""Arrays in files: what NumPy writes comes back, and what is no array of images is refused by name."""

from __future__ import annotations

import io
import re
import zipfile

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rarkit.datasets.npz import Npz
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.images import MOST_CLASSES
from rarkit.testing import DatasetSuite
from tests.limits import refusal


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
    @pytest.fixture(params=["two files", "one file"])
    def part(self, file, request):
        (train, labels), (test, test_labels) = drawn(40), drawn(9, seed=1)
        places = file(images=train, labels=labels), file("b.npz", images=test, labels=test_labels)
        if request.param == "two files":
            return Npz(path=places[0], test_path=places[1])
        return Npz(path=places[1], class_names=tuple("abcdefg"))


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
        (
            {"images": IMAGES / 255, "labels": LABELS},
            r"array images is float64 6 × 5 × 4 × 3; images must be uint8 .*np\.round\(255 \* images\)\.astype\(np\.uint8\)",
        ),
        ({"images": IMAGES.astype(np.int64), "labels": LABELS}, r"int64 .*from 0 to 255, save images\.astype\(np\.uint8\)"),
        ({"images": IMAGES[0], "labels": LABELS}, "array labels is int64 6; .* each of the 5 images"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "6 × 5 × 4 × 2; images must .* with 1, 3 or 4 channels"),
        ({"images": IMAGES.reshape(6, -1), "labels": LABELS}, r"6 × 60; .*save images\.reshape\(-1, height, width\)"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "0 × 5 × 4 × 3; images must"),
        (
            {"images": IMAGES, "labels": LABELS[:5]},
            "array labels is int64 5; labels must be a whole number or a name for each of the 6 images",
        ),
        ({"images": IMAGES, "labels": np.eye(6)}, r"6 × 6; labels must .*one-hot, save labels\.argmax\(axis=1\)"),
        ({"images": IMAGES, "labels": LABELS / 2}, "float64 6; labels must"),
        ({"images": IMAGES, "labels": LABELS - 1}, "labels range from -1 to 4"),
        ({"images": IMAGES, "labels": np.full(6, 2**64 - 1, np.uint64)}, "they must start at 0"),
        ({"images": IMAGES, "labels": np.array([{}] * 6)}, "object 6; labels must be a whole number or a name"),
        ({"images": np.array([[{}]]), "labels": LABELS}, "object 1 × 1; images must"),
        ({"images": IMAGES, "labels": np.array([b"caf\xe9"] * 6)}, r"names of classes are no UTF-8 \(b'caf\\xe9'\)"),
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
    with pytest.raises(DatasetError, match=r"b\.npz: its test images are 4 × 4 × 3, but those of .*a\.npz are 5 × 4 × 3"):
        Npz(path=train, test_path=smaller).open("test")
    stranger = file("c.npz", images=IMAGES, labels=LABELS + 4)
    with pytest.raises(DatasetError, match=r"c\.npz has the label 9, but the 6 classes are 0 to 5"):
        Npz(path=train, test_path=stranger).open("test")
    with pytest.raises(DatasetError, match="the label 5, but the 2 classes"):
        Npz(path=train, class_names=("a", "b")).open("train")


LAYOUTS = {
    "grey": lambda images: images[..., 0],
    "one channel": lambda images: images[..., :1],
    "colour": lambda images: images,
    "channels first": lambda images: images.transpose(0, 3, 1, 2),
    "one channel first": lambda images: images[..., :1].transpose(0, 3, 1, 2),
    "opacity first": lambda images: np.concatenate([images, np.full_like(images[..., :1], 255)], -1).transpose(0, 3, 1, 2),
    "column by column": np.asfortranarray,
    "black and white": lambda images: images[..., 0] > 127,
}
SIDES = st.integers(2, 7).filter(lambda side: side not in (3, 4))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(shape=st.tuples(st.integers(1, 6), SIDES, SIDES), seed=st.integers(0, 9))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_usual_layout_is_read(tmp_path, layout, shape, seed):
    images, labels = drawn(shape[0], (*shape[1:], 3), seed)
    np.savez(tmp_path / "x.npz", images=LAYOUTS[layout](images), labels=labels[:, None])
    dataset = Npz(path=str(tmp_path / "x.npz"))
    expected = images[..., :1] if "grey" in layout or "one channel" in layout else images
    if layout == "black and white":
        expected = np.where(images[..., :1] > 127, 255, 0)
    info = dataset.info()
    assert (info.height, info.width, info.channels) == expected.shape[1:]
    assert dataset.count("train") == shape[0]
    block = dataset.open("train").read()
    np.testing.assert_array_equal(block.images_NHWC, expected)
    np.testing.assert_array_equal(block.labels_N, labels)


KERAS = {"x_train": IMAGES[..., 0], "y_train": LABELS, "x_test": IMAGES[:4, ..., 0], "y_test": LABELS[:4, None]}


def test_training_and_test_arrays_in_one_file(file):
    """Keras' mnist.npz."""
    place = file(**KERAS)
    with pytest.warns(RarkitWarning, match=r'passed over x_test and y_test; to test on them, set test_images = "x_test"'):
        assert len(Npz(path=place).open("train")) == 6
    for dataset in (Npz(path=place, test_images="x_test"), Npz(path=place, test_path=place)):
        assert dataset.splits() == ("train", "test")
        test = dataset.open("test").read()
        np.testing.assert_array_equal(test.images_NHWC[..., 0], KERAS["x_test"])
        np.testing.assert_array_equal(test.labels_N, LABELS[:4])
        assert (len(dataset.open("train")), dataset.count("test")) == (6, 4)
        assert dataset.identity()["content"]["test"] != dataset.identity()["content"]["train"]
    with pytest.raises(DatasetError, match=r"has no array elsewhere; .*Set test_images to the name of the array of test images"):
        Npz(path=place, test_images="elsewhere").open("test")


@pytest.mark.parametrize(
    "keys", [("train_images", "train_labels"), ("image", "label"), ("data", "target"), ("x", "y"), ("X", "y"), ("data", "labels")]
)
def test_usual_names(file, keys):
    place = file(**dict(zip(keys, (IMAGES, LABELS), strict=True)))
    np.testing.assert_array_equal(Npz(path=place).open("train").read().labels_N, LABELS)


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_that_are_names(file, kind):
    names = np.array(["dog", "cat", "dog", "éléphant", "cat", "dog"])
    labels = np.char.encode(names, "utf-8") if kind == "S" else names
    dataset = Npz(path=file(images=IMAGES, labels=labels))
    assert dataset.info().class_names == ("cat", "dog", "éléphant")
    assert dataset.open("train").read().labels_N.tolist() == [1, 0, 1, 2, 0, 1]
    named = Npz(path=dataset.path, class_names=("éléphant", "cat", "dog"))
    assert named.open("train").read().labels_N.tolist() == [2, 1, 2, 0, 1, 2]
    with pytest.raises(DatasetError, match="has the class 'dog', which is none of the 2 classes"):
        Npz(path=dataset.path, class_names=("cat", "éléphant")).open("train")


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


def claiming(shape, kind="|u1", data=b"", size: int | None = None, length: int | None = None) -> tuple[bytes, int | None]:
    """An array's file whose header claims a shape, and the size that the directory of the archive claims for it."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    length = len(text) if length is None else length
    return b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little") + text + data, size


LABELLED = claiming((2,), "<i8", np.arange(2).tobytes())
CLAIMS = {
    "terabytes": (
        claiming((1_000_000, 1_000, 1_000, 3)),
        LABELLED,
        "3,000,000,000,000 bytes of numbers by its header, 0 in the file",
    ),
    "as the directory does": (
        claiming((3_000, 1_000, 1_000), size=3_000_000_130),
        LABELLED,
        r"\d+ bytes that expand to 3,000,000,130",
    ),
    "a number beyond any": (claiming((2**62, 2**62)), LABELLED, "bytes of numbers by its header"),
    "a negative number": (claiming((-2, 2, 2)), LABELLED, "bytes of numbers by its header"),
    "a header": (claiming((2, 1, 1), length=2**32 - 1), LABELLED, "a header of 4,294,967,295 bytes"),
    "labels": (
        claiming((2, 1, 1), data=bytes(2)),
        claiming((2,), "<i8", np.array([0, 10**8]).tobytes()),
        "from 0 to 100000000; .* less than",
    ),
    "a label": (
        claiming((2, 1, 1), data=bytes(2)),
        claiming((2,), "<i8", np.array([0, 2**62]).tobytes()),
        f"less than {MOST_CLASSES:,}",
    ),
}


@pytest.mark.parametrize("what", CLAIMS)
def test_files_that_claim_are_refused_in_little_memory(tmp_path, what):
    images, labels, message = CLAIMS[what]
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, size) in (("images.npy", images), ("labels.npy", labels)):
            archive.writestr(name, data)
            if size is not None:
                archive.getinfo(name).file_size = size  # for the directory, which is written at the end
    told = refusal(lambda: Npz(path=str(tmp_path / "a.npz")).open("train"))
    assert re.search(rf"a\.npz.*{message}", told), told


def test_an_array_larger_than_the_machine_is_refused(file, monkeypatch):
    images, labels = drawn(50)
    dataset = Npz(path=file(images=images, labels=labels))
    assert len(dataset.open("train")) == 50
    monkeypatch.setattr("rarkit.files.npz.os.sysconf", lambda name: 1 if name == "SC_PHYS_PAGES" else 1000)
    with pytest.raises(DatasetError, match=r"array images takes .* GiB, more than the memory of this machine"):
        dataset.open("train")


@pytest.mark.parametrize("largest", [MOST_CLASSES - 1, MOST_CLASSES])
def test_as_many_classes_as_there_may_be(file, largest):
    dataset = Npz(path=file(images=drawn(2)[0], labels=np.array([0, largest])))
    if largest < MOST_CLASSES:
        assert dataset.info().num_classes == MOST_CLASSES
    else:
        with pytest.raises(DatasetError, match=r"If they are numbers of another kind, save numpy\.unique"):
            dataset.info()
