"""Reference batches of OpenAI's ADM evaluator: real images, and statistics of many more.

Shape letters: N images, B of a batch, H, W, C height, width, channels, F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError
from rarkit.files.npz import checksums, header, opened, read_array, streamed

IMAGES = "arr_0"
STATISTICS = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""The arrays of mean and covariance, by the space that they are of."""


@final
class ReferenceBatch:
    """An ``.npz`` file with ``arr_0``, uint8 (N, H, W, 3), and often ``mu``, ``sigma``, ``mu_s``, ``sigma_s``."""

    def __init__(self, location: str) -> None:
        """Opens nothing yet. ``location``: a path or any fsspec URL."""
        self.location = location

    def content(self) -> Any:
        """Names, sizes and checksums of the arrays, as the file states them. Raises DatasetError if it is missing or damaged."""
        with opened(self.location) as archive:
            return checksums(archive, [name.removesuffix(".npy") for name in archive.namelist()])

    def __len__(self) -> int:
        return self._shape()[0]

    def batches(self, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """The images, (B, H, W, 3) uint8 at a time, in bounded memory."""
        self._shape()
        with opened(self.location) as archive:
            yield from streamed(archive, IMAGES, self.location, batch_size)

    def statistics(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Mean (F,) and covariance (F, F) of what an extractor calls ``features`` and ``spatial``; empty where the file has none.

        Raises:
            DatasetError: the arrays do not go together, or hold what is not finite.
        """
        statistics = {}
        with opened(self.location) as archive:
            names = set(archive.namelist())
            for space, keys in STATISTICS.items():
                if not {f"{key}.npy" for key in keys} <= names:
                    continue
                mean_F, covariance_FF = (read_array(archive, key, self.location).astype(np.float64) for key in keys)
                square = mean_F.ndim == 1 and covariance_FF.shape == (len(mean_F), len(mean_F))
                if not square or not (np.isfinite(mean_F).all() and np.isfinite(covariance_FF).all()):
                    raise DatasetError(
                        f"{self.location}: arrays {' and '.join(keys)} are no mean (F,) and covariance (F, F) of finite numbers. "
                        "Download the file again."
                    )
                statistics[space] = mean_F, covariance_FF
        return statistics

    def _shape(self) -> tuple[int, ...]:
        with opened(self.location) as archive:
            if f"{IMAGES}.npy" not in archive.namelist():
                raise DatasetError(f"{self.location} is no reference batch of the ADM evaluator: it has no array {IMAGES}")
            shape, dtype = header(archive, IMAGES, self.location)
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise DatasetError(f"{self.location}: array {IMAGES} must be uint8 images, N × height × width × 3, not {dtype} {shape}")
        return shape
