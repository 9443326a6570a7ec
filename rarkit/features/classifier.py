"""A small convolutional classifier, trained on the data set at hand.

Shape letters: N training images, B batch, H, W, C height, width, channels of an image, F features, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

import numpy as np
from pydantic import Field

from rarkit.engine.settings import TrainSettings
from rarkit.errors import DatasetError, GridError
from rarkit.features.base import FeatureExtractor, FeatureModel, LearnedState
from rarkit.images import ImageBlock, ImageInfo, ImageReader, joined
from rarkit.randomness import drawn_rows
from rarkit.registry.bounds import Batch, Images, Rate, RateOrZero, Steps

if TYPE_CHECKING:
    from rarkit.engine.learning import Learning

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
    version: ClassVar[int] = 2

    def rehearsed(self) -> Self:
        return self.model_copy(update={"steps": 2, "width": 4, "batch_size": 8})

    def check_images(self, info: ImageInfo) -> None:
        if info.num_classes < 2:
            raise GridError(
                "feature extractor 'classifier' needs images of two classes or more, but this dataset has one, "
                f"{info.class_names[0]!r}. Choose another [evaluate.features], such as "
                "'inception', or leave out [evaluate] (--unset evaluate)."
            )

    def learn(self, reader: ImageReader, seed: int, learning: Learning) -> LearnedState:
        """Trains the network, in one process and on one thread of the CPU, so that the same seed gives the same bits.

        Args:
            reader: labelled training images, all of one size.
            seed: decides initial weights, batches and shifts.
            learning: for progress, log and checkpoints.

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
        from rarkit.features._classifier_task import Shape, trained

        settings = TrainSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            end_learning_rate=0.0,
            warmup_steps=min(WARMUP_STEPS, self.steps),
            betas=(0.9, 0.999),
            weight_decay=self.weight_decay,
            gradient_clip=None,
            precision="float32",
        )
        return trained(Shape(self.width, self.features, self.shift), settings, images, seed, learning)

    def _drawn(self, reader: ImageReader, seed: int) -> ImageBlock:
        rows_N = drawn_rows(seed, len(reader), self.max_images)
        return joined(list(reader.chosen(rows_N, max(1, len(rows_N)))))

    def build(self, state: LearnedState, device: str) -> FeatureModel:
        from rarkit.features._classifier_network import ClassifierModel

        return ClassifierModel(state, device)
