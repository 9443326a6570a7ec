"""The classifier: it learns real digits, repeats itself to the bit, and looks at each image alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.datasets.digits import Digits
from rarkit.errors import DatasetError, GridError, WeightsError
from rarkit.features._classifier_network import shifted
from rarkit.features.classifier import Classifier
from rarkit.images import ImageBlock, ImageInfo, ImageReader

SMALL = Classifier(width=4, features=8, steps=3, batch_size=8)


class Given(ImageReader):
    def __init__(self, images_NHWC: np.ndarray, labels_N: np.ndarray) -> None:
        self.block = ImageBlock(images_NHWC, labels_N)
        self.rows_read = 0

    def __len__(self) -> int:
        return len(self.block.labels_N)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            chosen = slice(first, min(first + rows, stop))
            self.rows_read += len(self.block.labels_N[chosen])
            yield ImageBlock(self.block.images_NHWC[chosen], self.block.labels_N[chosen])


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def noise(height: int, width: int, channels: int, count: int = 12, classes: int = 3) -> Given:
    images = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return Given(images, np.arange(count) % classes)


def test_it_learns_the_digits():
    """98 % on images it has not seen, under default settings; the yardstick of everything measured in its features."""
    extractor = Classifier()
    model = extractor.build(extractor.fit(Digits().open("train"), 0), "cpu")
    held_out = Digits().open("test").read()
    seen = model(torch.from_numpy(held_out.images_NHWC))
    assert seen.features_BF.shape == (len(held_out.labels_N), extractor.features)
    assert seen.logits_BC is not None
    right = seen.logits_BC.argmax(1).numpy() == held_out.labels_N
    assert right.mean() >= 0.98


@pytest.mark.usefixtures("threads_as_before")
def test_the_same_seed_gives_the_same_bits_and_leaves_torch_alone():
    reader = noise(8, 8, 1)
    states = []
    for global_seed, count in ((1, 1), (2, 4)):
        torch.manual_seed(global_seed)
        torch.set_num_threads(count)
        before = torch.get_rng_state()
        with torch.inference_mode():
            states.append(SMALL.fit(reader, 5))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == count
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, states[1][name])
    other = SMALL.fit(reader, 6)
    assert any(not np.array_equal(values, other[name]) for name, values in states[0].items())


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
@settings(max_examples=20)
def test_images_of_any_size_can_be_learned(height, width, channels):
    reader = noise(height, width, channels)
    seen = SMALL.build(SMALL.fit(reader, 0), "cpu")(torch.from_numpy(reader.read().images_NHWC))
    assert seen.features_BF.shape == (12, 8)
    assert seen.logits_BC is not None
    assert seen.logits_BC.shape == (12, 3)
    assert seen.features_BF.isfinite().all()


@given(st.lists(st.integers(0, 299), min_size=1, max_size=300))
@settings(max_examples=20)
def test_a_row_depends_on_its_image_alone(rows):
    reader = noise(8, 8, 1, count=300)
    model = SMALL.build(STATE, "cpu")
    images = torch.from_numpy(reader.read().images_NHWC)
    whole, some = model(images), model(images[rows])
    assert torch.equal(some.features_BF, whole.features_BF[rows])
    assert torch.equal(some.logits_BC, whole.logits_BC[rows])


STATE = SMALL.fit(noise(8, 8, 1), 0)


def test_images_without_contrast_do_no_harm():
    reader = Given(np.full((4, 5, 5, 1), 7, np.uint8), np.array([0, 1, 0, 1]))
    seen = SMALL.build(SMALL.fit(reader, 0), "cpu")(torch.from_numpy(reader.read().images_NHWC))
    assert seen.features_BF.isfinite().all()


@given(st.integers(0, 2), st.integers(1, 5), st.integers(1, 5), st.data())
def test_a_shift_moves_the_image_and_repeats_its_edge(most, height, width, data):
    moved = np.array(data.draw(st.lists(st.tuples(*[st.integers(0, 2 * most)] * 2), min_size=1, max_size=4)))
    images = np.random.default_rng(0).normal(size=(len(moved), 2, height, width)).astype(np.float32)
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)), mode="edge")
    expected = [image[:, row : row + height, column : column + width] for image, (row, column) in zip(padded, moved, strict=True)]
    seen = shifted(torch.from_numpy(images), torch.from_numpy(moved), most)
    np.testing.assert_array_equal(seen.numpy(), np.array(expected))


def test_large_data_is_sampled():
    reader = noise(4, 4, 1, count=50)
    block = Classifier(max_images=20)._drawn(reader, 0)
    assert len(block.labels_N) == reader.rows_read == 20
    everything = {image.tobytes(): label for image, label in zip(reader.block.images_NHWC, reader.block.labels_N, strict=True)}
    assert len({image.tobytes() for image in block.images_NHWC}) == 20
    assert [everything[image.tobytes()] for image in block.images_NHWC] == block.labels_N.tolist()


def test_what_does_not_fit_is_refused():
    with pytest.raises(DatasetError, match="two classes"):
        SMALL.fit(noise(4, 4, 1, classes=1), 0)
    with pytest.raises(WeightsError, match="shape"):
        SMALL.build({}, "cpu")
    broken = {name: values for name, values in STATE.items() if name != "network.head.bias"}
    with pytest.raises(WeightsError, match=r"head\.bias"):
        SMALL.build(broken, "cpu")
    with pytest.raises(GridError, match="8×8"):
        SMALL.build(STATE, "cpu")(torch.zeros(1, 8, 9, 1, dtype=torch.uint8))


def test_one_class_is_refused_before_anything_is_trained():
    Classifier().check_images(ImageInfo(8, 8, 3, ("cat", "dog")))
    with pytest.raises(GridError, match="this dataset has one, 'images'"):
        Classifier().check_images(ImageInfo(8, 8, 3, ("images",)))
