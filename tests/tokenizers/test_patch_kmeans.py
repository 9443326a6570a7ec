"""Patches by k-means: codes are nearest centres, centres are means, and the same seed gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from rarkit.datasets.digits import Digits
from rarkit.errors import DatasetError, GridError, WeightsError
from rarkit.images import ImageBlock, ImageInfo, ImageReader
from rarkit.tokenizers import patch_kmeans
from rarkit.tokenizers.patch_kmeans import PatchKMeans


class Given(ImageReader):
    """Images from an array; counts the rows that are read."""

    def __init__(self, images_NHWC: np.ndarray) -> None:
        self.images_NHWC = images_NHWC
        self.rows_read = 0

    def __len__(self) -> int:
        return len(self.images_NHWC)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            images = self.images_NHWC[first : min(first + rows, stop)]
            self.rows_read += len(images)
            yield ImageBlock(images, np.zeros(len(images), dtype=np.int64))


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def cut(images_NHWC: np.ndarray, patch: int) -> np.ndarray:
    """Patches one by one, in raster order: the plain version."""
    _, height, width, _ = images_NHWC.shape
    return np.array(
        [
            image[row : row + patch, column : column + patch].ravel()
            for image in images_NHWC
            for row in range(0, height, patch)
            for column in range(0, width, patch)
        ]
    )


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 5), st.integers(2, 30),
    st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None)
def test_codes_are_the_nearest_centres(patch, rows, columns, channels, batch, codes, seed):
    images = noise(batch, rows * patch, columns * patch, channels, seed=seed)
    codebook = np.random.default_rng(seed).uniform(0, 255, (codes, patch * patch * channels)).astype(np.float32)
    model = PatchKMeans(patch=patch, codes=codes).build({"codebook": codebook}, "cpu")
    found = model.encode(torch.from_numpy(images))
    assert found.shape == (batch, rows, columns)
    assert found.dtype == torch.int64
    distance = np.linalg.norm(cut(images, patch)[:, None].astype(np.float64) - codebook, axis=-1)
    chosen = distance[np.arange(len(distance)), found.flatten().numpy()]
    np.testing.assert_allclose(chosen, distance.min(1), rtol=1e-5)
    decoded = model.decode(found).numpy()
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(cut(decoded, patch), np.round(codebook[found.flatten().numpy()]))
    alone = torch.cat([model.encode(torch.from_numpy(image[None])) for image in images])
    assert torch.equal(alone, found)


def test_chunks_change_nothing(monkeypatch):
    images = torch.from_numpy(noise(7, 6, 4, 3))
    tokenizer = PatchKMeans(codes=20)
    state = tokenizer.fit(Given(images.numpy()), 0)
    whole = tokenizer.build(state, "cpu").encode(images)
    monkeypatch.setattr(patch_kmeans, "DISTANCES_AT_ONCE", 60)
    assert torch.equal(tokenizer.build(state, "cpu").encode(images), whole)


def test_centres_are_the_means_of_their_patches():
    """Lloyd's fixed point, on real digits; and the codebook runs from dark to light."""
    reader = Digits().open("train")
    tokenizer = PatchKMeans(codes=32)
    codebook = tokenizer.fit(reader, 0)["codebook"]
    assert codebook.dtype == np.float32
    assert codebook.shape == (32, 4)
    images = reader.read().images_NHWC
    codes = tokenizer.build({"codebook": codebook}, "cpu").encode(torch.from_numpy(images)).flatten().numpy()
    patches = cut(images, 2)
    means = np.array([patches[codes == code].mean(0) for code in range(32)])
    np.testing.assert_allclose(codebook, means, atol=0.05)
    assert np.all(np.diff(codebook.mean(1)) >= 0)


def test_more_codes_lose_less():
    reader = Digits().open("train")
    images = torch.from_numpy(reader.read().images_NHWC)
    errors = []
    for codes in (8, 32, 128):
        tokenizer = PatchKMeans(codes=codes)
        model = tokenizer.build(tokenizer.fit(reader, 0), "cpu")
        errors.append((model.decode(model.encode(images)).float() - images.float()).square().mean().item())
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2]


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads():
    reader, tokenizer = Digits().open("train"), PatchKMeans(codes=64)
    found = []
    for threads in (1, 4, 4):
        with threadpool_limits(threads):
            found.append(tokenizer.fit(reader, 7)["codebook"].tobytes())
    assert len(set(found)) == 1
    assert tokenizer.fit(reader, 8)["codebook"].tobytes() != found[0]


def test_as_many_codes_as_distinct_patches_lose_nothing():
    images = np.repeat(noise(3, 4, 4, 1), 5, axis=0)
    distinct = len(np.unique(cut(images, 2), axis=0))
    tokenizer = PatchKMeans(codes=distinct)
    model = tokenizer.build(tokenizer.fit(Given(images), 0), "cpu")
    assert torch.equal(model.decode(model.encode(torch.from_numpy(images))), torch.from_numpy(images))
    with pytest.raises(DatasetError, match=f"only {distinct} distinct"):
        PatchKMeans(codes=distinct + 1).fit(Given(images), 0)


def test_large_data_is_sampled():
    """From each drawn image the same number of patches, none twice, all from that image; and only drawn images are read."""
    images = np.arange(40 * 64, dtype=np.int64).reshape(40, 8, 8, 1)
    images = np.concatenate([images % 256, images // 256], axis=-1).astype(np.uint8)
    reader = Given(images)
    tokenizer = PatchKMeans(patch=1, codes=2, max_images=10, max_patches=60)
    drawn = np.concatenate(list(tokenizer._drawn(reader, 3))).astype(np.int64)
    cells = drawn[:, 0] + 256 * drawn[:, 1]
    assert reader.rows_read == 10
    assert len(set(cells)) == len(cells) == 60
    assert sorted(np.unique(cells // 64, return_counts=True)[1]) == [6] * 10
    again = np.concatenate(list(tokenizer._drawn(Given(images), 3)))
    np.testing.assert_array_equal(again, drawn)
    other = np.concatenate(list(tokenizer._drawn(Given(images), 4)))
    assert not np.array_equal(other, drawn)


def test_what_does_not_fit_is_refused():
    tokenizer = PatchKMeans(patch=2, codes=2)
    assert tokenizer.grid(ImageInfo(8, 6, 3, ("a",))) == (4, 3)
    with pytest.raises(GridError, match="7×8"):
        tokenizer.grid(ImageInfo(7, 8, 1, ("a",)))
    with pytest.raises(GridError, match="7×8"):
        tokenizer.fit(Given(noise(4, 7, 8, 1)), 0)
    with pytest.raises(WeightsError, match="codebook"):
        tokenizer.build({}, "cpu")
    with pytest.raises(WeightsError, match=r"\(3, 4\)"):
        tokenizer.build({"codebook": np.zeros((3, 4), np.float32)}, "cpu")
    model = tokenizer.build({"codebook": np.zeros((2, 4), np.float32)}, "cpu")
    with pytest.raises(GridError, match="3 channels"):
        model.encode(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))
