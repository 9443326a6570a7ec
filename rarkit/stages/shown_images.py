"""The few held-out images that the page shows, each beside what the tokenizer leaves of it.

Shape letters: N images, H, W, C their height, width and channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.base import Dataset
from rarkit.images import ImageReader
from rarkit.randomness import drawn_rows
from rarkit.tokenizers.base import TokenizerModel

SHOWN_IMAGES = 20
SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS = "shown_originals", "shown_reconstructions"
"""Arrays of an output, (N, H, W, C) uint8."""


def shown_rows(seed: int, reader: ImageReader) -> NDArray[np.int64]:
    """Which images of a reader are shown, ascending."""
    return drawn_rows(seed, len(reader), SHOWN_IMAGES)


def shown_images(seed: int, reader: ImageReader) -> NDArray[np.uint8]:
    """These images."""
    return next(reader.chosen(shown_rows(seed, reader), SHOWN_IMAGES)).images_NHWC


def shown_of(seed: int, dataset: Dataset) -> NDArray[np.uint8]:
    """Those of a dataset's held-out images, or of its training images if it has no others."""
    return shown_images(seed, dataset.open("test" if "test" in dataset.splits() else "train"))


def reconstructed(model: TokenizerModel, images_NHWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images after encoding and decoding."""
    import torch

    # Torch has no read-only tensors.
    images = torch.from_numpy(np.require(images_NHWC, requirements="W"))
    decoded_NHWC: NDArray[np.uint8] = model.decode(model.encode(images)).cpu().numpy()
    return decoded_NHWC
