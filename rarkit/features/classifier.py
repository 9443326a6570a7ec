"""A small convolutional classifier, trained on the data set at hand.

Shape letters: N training images, B batch, H, W, C height, width, channels of an image, F features, K classes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, final

import numpy as np
from pydantic import Field, PositiveInt

from rarkit.errors import DatasetError
from rarkit.features.base import FeatureExtractor, FeatureModel, LearnedState
from rarkit.images import ImageBlock, ImageReader
from rarkit.randomness import uniforms


@final
class Classifier(FeatureExtractor):
    """Trains a small convolutional network to tell the classes apart; its last hidden layer gives the features.

    For data on which no network of the field has been trained. What it finds is comparable between models of one data set under the
    same settings and seed, and with nothing else: its Fréchet distance is not FID.
    """

    name: Literal["classifier"] = "classifier"
    width: Annotated[int, Field(ge=4, multiple_of=4)] = 16
    """Channels of the first convolution; they double each time that the image is halved, up to four times as many."""
    features: PositiveInt = 64
    """F, the width of the last hidden layer."""
    steps: PositiveInt = 600
    """Steps of AdamW."""
    batch_size: PositiveInt = 128
    """Training images of a step, drawn with replacement."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    """The highest learning rate; it rises over 20 steps and falls to 0 along a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """AdamW's."""
    shift: Annotated[int, Field(ge=0)] = 1
    """Training images are moved by up to so many pixels each way, at random; the edge is repeated."""
    max_images: PositiveInt = 20_000
    """Training images at most; from larger data so many are drawn without replacement."""

    learns: ClassVar[bool] = True

    def rehearsed(self) -> Self:
        return self.model_copy(update={"steps": 2, "width": 4, "batch_size": 8})

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
        from rarkit.features._classifier_network import train

        images = self._drawn(reader, seed)
        found = np.unique(images.labels_N)
        if len(found) < 2:
            raise DatasetError(
                f"feature extractor 'classifier' needs images of two classes or more, but the {len(images.labels_N)} training "
                f"images have the classes {found.tolist()}. Choose another [evaluate.features] for this [dataset]."
            )
        return train(self, images, seed)

    def _drawn(self, reader: ImageReader, seed: int) -> ImageBlock:
        if len(reader) <= self.max_images:
            return reader.read()
        chance_N = uniforms(seed, "images", 0, np.arange(len(reader)), 1)[:, 0]
        rows = np.sort(np.argsort(chance_N, kind="stable")[: self.max_images])
        blocks = [block for row in rows for block in reader.blocks(int(row), int(row) + 1, 1)]
        return ImageBlock(
            np.concatenate([block.images_NHWC for block in blocks]), np.concatenate([block.labels_N for block in blocks])
        )

    def build(self, state: LearnedState, device: str) -> FeatureModel:
        from rarkit.features._classifier_network import ClassifierModel

        return ClassifierModel(state, device)
