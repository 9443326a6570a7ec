"""Reference batches of OpenAI's ADM evaluator: real images, statistics of real images, or both.

Shape letters: N images, B of a batch, H, W, C height, width, channels, F features.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError
from rarkit.files.npz import checksums, header, opened, read_array, streamed

IMAGES = "arr_0"
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""The arrays of mean and covariance, by the space that they are of."""
ROUNDING = 1e-6
"""A covariance is none if entries differ from those across its diagonal, or variances are below 0, by more than this share of the
largest entry."""


@final
class ReferenceBatch:
    """An ``.npz`` file with ``arr_0``, uint8 (N, H, W, 3), or ``mu`` and ``sigma``, or both, and often ``mu_s`` and ``sigma_s``."""

    def __init__(self, location: str, widths: Mapping[str, int] | None = None) -> None:
        """Opens nothing yet.

        Args:
            location: a path or any fsspec URL.
            widths: how many ``features`` and ``spatial`` features the extractor has, to check the statistics against.
        """
        self.location = location
        self.widths = dict(widths or {})

    def content(self) -> Any:
        """Names, sizes and checksums of the arrays, as the file states them.

        Raises:
            DatasetError: the file is missing or damaged, or cannot serve: it has neither images nor statistics, or statistics of
                another width, that are not finite, or that are no mean and covariance.
        """
        with opened(self.location) as archive:
            content = checksums(archive, _arrays(archive))
        # Plans ask several times, and the statistics are 64 MB.
        _check(self.location, tuple(map(tuple, content)), tuple(self.widths.items()))
        return content

    @property
    def has_images(self) -> bool:
        """Whether there are images, without which nearest neighbours (precision and recall) cannot be measured."""
        with opened(self.location) as archive:
            return IMAGES in _arrays(archive)

    def __len__(self) -> int:
        with opened(self.location) as archive:
            return _image_shape(archive, self.location)[0]

    def batches(self, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """The images, (B, H, W, 3) uint8 at a time, in bounded memory."""
        with opened(self.location) as archive:
            _image_shape(archive, self.location)
            yield from streamed(archive, IMAGES, self.location, batch_size)

    def statistics(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Mean (F,) and covariance (F, F) of what an extractor calls ``features`` and ``spatial``; empty where the file has none.

        Raises:
            DatasetError: they cannot serve; see ``content``.
        """
        with opened(self.location) as archive:
            return {
                space: _statistics(archive, self.location, space, self.widths.get(space))
                for space, keys in STATISTICS.items()
                if _has_both(archive, self.location, keys)
            }

    def lacking(self, distances: Mapping[str, str]) -> list[str]:
        """What cannot be measured against this batch, or not against its statistics: a sentence each.

        Args:
            distances: the names of the Fréchet distances in ``features`` and ``spatial``.
        """
        with opened(self.location) as archive:
            arrays = _arrays(archive)
        sentences = []
        for space, keys in STATISTICS.items():
            if set(keys) <= set(arrays):
                continue
            missing = f"{self.location} has no {' and '.join(keys)}"
            if IMAGES not in arrays:
                sentences.append(f"{distances[space]} is left out: {missing}.")
            elif {"mu", "sigma"} <= set(arrays):
                sentences.append(f"{distances[space]} is against the images of the reference batch: {missing}.")
        if IMAGES not in arrays:
            sentences.append(f"precision and recall are left out: {self.location} has no images ({IMAGES}).")
        return sentences


def _arrays(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


@cache
def _check(location: str, content: tuple[Any, ...], widths: tuple[tuple[str, int], ...]) -> None:
    """Raises DatasetError unless the file can serve. ``content`` is part of the cache's key: the file may be replaced."""
    with opened(location) as archive:
        arrays, width_of = _arrays(archive), dict(widths)
        if IMAGES not in arrays and not set(STATISTICS["features"]) <= set(arrays):
            raise DatasetError(
                f"{location} is no reference batch of the ADM evaluator: it has neither images ({IMAGES}) nor mu and sigma, only "
                f"{', '.join(arrays) or 'no arrays'}. Download VIRTUAL_imagenet256_labeled.npz, or leave out reference."
            )
        measured = [space for space, keys in STATISTICS.items() if _has_both(archive, location, keys)]
        for space in measured:
            _statistics(archive, location, space, width_of.get(space))
        if IMAGES in arrays:
            count = _image_shape(archive, location)[0]
            if count < 2 and len(measured) < len(STATISTICS):
                raise DatasetError(f"{location} has a single image and no statistics of more. Use a batch of many images.")
            next(streamed(archive, IMAGES, location, 1))


def _has_both(archive: zipfile.ZipFile, location: str, keys: tuple[str, str]) -> bool:
    present = [key for key in keys if key in _arrays(archive)]
    if len(present) == 1:
        other = keys[1] if present[0] == keys[0] else keys[0]
        raise DatasetError(f"{location} has the array {present[0]}, but not {other}. Download the file again.")
    return bool(present)


def _statistics(
    archive: zipfile.ZipFile, location: str, space: str, width: int | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    keys = STATISTICS[space]
    # Before they are read: a covariance grows with the square of the features.
    (shape_F, dtype), (shape_FF, dtype_FF) = (header(archive, key, location) for key in keys)
    together = f"{location}: arrays {' and '.join(keys)}"
    if dtype.kind not in "fiu" or dtype_FF.kind not in "fiu":
        raise DatasetError(f"{together} are {dtype} and {dtype_FF}, not real numbers. Download the file again.")
    if len(shape_F) != 1 or shape_FF != (*shape_F, *shape_F):
        shapes = f"of shapes {shape_F} and {shape_FF}"
        raise DatasetError(f"{together}, {shapes}, are no mean (F,) and covariance (F, F). Download the file again.")
    if width is not None and shape_F[0] != width:
        raise DatasetError(
            f"{together} are of {shape_F[0]:,} features, but the extractor has {width:,}: they are of another network. "
            "Choose statistics of this one."
        )
    mean_F, covariance_FF = (read_array(archive, key, location).astype(np.float64) for key in keys)
    if not (np.isfinite(mean_F).all() and np.isfinite(covariance_FF).all()):
        raise DatasetError(f"{together} hold numbers that are not finite. Download the file again.")
    rounding = ROUNDING * np.abs(covariance_FF).max(initial=0.0)
    if np.abs(covariance_FF - covariance_FF.T).max(initial=0.0) > rounding:
        raise DatasetError(f"{together} are no mean and covariance: {keys[1]} is not symmetric. Download the file again.")
    if (np.diagonal(covariance_FF) < -rounding).any():
        raise DatasetError(f"{together} are no mean and covariance: {keys[1]} has negative variances. Download the file again.")
    return mean_F, covariance_FF


def _image_shape(archive: zipfile.ZipFile, location: str) -> tuple[int, ...]:
    if IMAGES not in _arrays(archive):
        raise DatasetError(f"{location} has no images: there is no array {IMAGES}")
    shape, dtype = header(archive, IMAGES, location)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise DatasetError(f"{location}: array {IMAGES} must be uint8 images, N × height × width × 3, not {dtype} {shape}")
    return shape
