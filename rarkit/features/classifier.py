"""A small convolutional classifier, trained on the data set at hand.

Shape letters: N training images, B batch, H, W, C height, width, channels of an image, F features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, ClassVar, Literal, Self, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.errors import DatasetError, GridError
from rarkit.features.base import FeatureExtractor, FeatureModel, LearnedState
from rarkit.images import ImageBlock, ImageInfo, ImageReader, joined
from rarkit.randomness import derived_seed, drawn_rows, uniforms
from rarkit.registry.bounds import Batch, Images, Rate, RateOrZero, Steps

WARMUP_STEPS = 20


@final
class Classifier(FeatureExtractor):
    """Trains a small convolutional network to tell the classes apart; its last hidden layer gives the features.

    For data that no published network was trained on. Numbers in its features can be compared between models of one data set, under
    the same settings and seed, and with nothing else: its Fréchet distance is not FID.
    """

    name: Literal["classifier"] = "classifier"
    width: Annotated[int, Field(ge=4, le=2**12, multiple_of=4)] = 16
    """Channels of the first convolution. They double each time the image is halved, to at most four times this number."""
    features: Annotated[int, Field(gt=0, le=2**13)] = 64
    """F, the width of the last hidden layer."""
    steps: Steps = 600
    """Steps of AdamW."""
    batch_size: Batch = 128
    """Training images per step, drawn with replacement."""
    learning_rate: Rate = 3e-3
    """Peak learning rate: a linear warm-up over 20 steps, then a cosine to 0."""
    weight_decay: RateOrZero = 0.05
    """Weight decay of AdamW."""
    shift: Annotated[int, Field(ge=0, le=2**13)] = 1
    """Largest random shift of a training image, in pixels, in each direction; the edge is repeated."""
    max_images: Images = 20_000
    """Maximum number of training images. From a larger dataset, this many are drawn without replacement."""

    learns: ClassVar[bool] = True

    def rehearsed(self) -> Self:
        return self.model_copy(update={"steps": 2, "width": 4, "batch_size": 8})

    def check_images(self, info: ImageInfo) -> None:
        if info.num_classes < 2:
            raise GridError(
                "feature extractor 'classifier' needs images of two classes or more, but this dataset has one, "
                f"{info.class_names[0]!r}. Choose another [evaluate.features], such as "
                "'inception', or leave out [evaluate] (--unset evaluate)."
            )

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Trains the network, on one thread of the CPU, so that the same seed gives the same bits.

        Args:
            reader: labelled training images, all of one size.
            seed: decides initial weights, batches and shifts.

        Returns:
            Float32 arrays by name: ``shape`` (height, width, channels), ``mean`` and ``std`` (C,) of the training images, and
            ``network.…``, the weights.

        Raises:
            DatasetError: fewer than two classes.
        """
        images = self._drawn(reader, seed)
        classes = np.unique(images.labels_N)
        if len(classes) < 2:
            raise DatasetError(
                f"feature extractor 'classifier' needs images of two classes or more, but the {len(images.labels_N)} training "
                f"images have the classes {classes.tolist()}. Choose another [evaluate.features] for this [dataset]."
            )
        return _train(self, images, seed)

    def _drawn(self, reader: ImageReader, seed: int) -> ImageBlock:
        rows_N = drawn_rows(seed, len(reader), self.max_images)
        return joined(list(reader.chosen(rows_N, max(1, len(rows_N)))))

    def build(self, state: LearnedState, device: str) -> FeatureModel:
        from rarkit.features._classifier_network import ClassifierModel

        return ClassifierModel(state, device)


def _train(settings: Classifier, images: ImageBlock, seed: int) -> dict[str, NDArray[np.generic]]:
    """Trains a network; see ``Classifier.fit``."""
    import torch
    from torch.nn import functional

    from rarkit.features._classifier_network import WEIGHTS, Network, normalised, shifted

    count, height, width, channels = images.images_NHWC.shape
    pixels = images.images_NHWC.reshape(-1, channels)
    mean_C = pixels.mean(0, dtype=np.float64).astype(np.float32)
    # A channel without contrast stays at 0 instead of being divided by nothing.
    std_C = np.maximum(pixels.std(0, dtype=np.float64), 1.0).astype(np.float32)
    images_NCHW = torch.from_numpy(images.images_NHWC).permute(0, 3, 1, 2).contiguous()
    labels_N = torch.from_numpy(images.labels_N)
    with _own_randomness(derived_seed(seed, "classifier")), torch.inference_mode(False), torch.enable_grad():
        classes = int(images.labels_N.max()) + 1
        network = Network((height, width, channels), settings.width, settings.features, classes)
        decay = settings.weight_decay
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=decay)
        for step in range(settings.steps):
            chance_B3 = uniforms(seed, "classifier batch", step, np.arange(settings.batch_size), 3)
            rows_B = torch.from_numpy((chance_B3[:, 0] * count).astype(np.int64))
            moved_B2 = torch.from_numpy((chance_B3[:, 1:] * (2 * settings.shift + 1)).astype(np.int64))
            batch_BCHW = shifted(normalised(images_NCHW[rows_B], mean_C, std_C), moved_B2, settings.shift)
            loss = functional.cross_entropy(network(batch_BCHW)[1], labels_N[rows_B])
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * _rate(step, settings.steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    weights = {f"{WEIGHTS}{name}": values.detach().numpy() for name, values in network.state_dict().items()}
    return {"shape": np.array([height, width, channels], np.float32), "mean": mean_C, "std": std_C, **weights}


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seeds torch's generator and limits it to one thread (one order of summation); restores both on exit."""
    import torch

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _rate(step: int, steps: int) -> float:
    """The learning rate as a fraction of the peak."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * step / steps))
