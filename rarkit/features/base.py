"""Feature extractors: the spaces in which evaluation compares images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageInfo, ImageReader
from rarkit.registry.component import Component
from rarkit.registry.contract import broken, check_fit, checked
from rarkit.registry.inputs import check_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.engine.learning import Learning
    from rarkit.features.reference_batch import ReferenceBatch

LearnedState = Mapping[str, NDArray[np.generic]]
"""What ``fit`` learned: arrays by name."""


@final
@dataclass(frozen=True)
class Features:
    """What an extractor sees in a batch, all float32."""

    features_BF: Tensor
    logits_BC: Tensor | None = None
    """Class scores, where it is a classifier."""
    spatial_BS: Tensor | None = None
    """Features that keep where in the image something is, where it has them."""


class FeatureModel(ABC):
    """An extractor ready to work on one device. What it is given and returns is checked, if a part built it."""

    _part: FeatureExtractor | None = None
    """The part that built it."""
    _widths: tuple[int | None, ...] = ()
    """The widths of features, class scores and spatial features in the first batch."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, __call__=_checked_call)

    @abstractmethod
    def __call__(self, images_BHWC: Tensor) -> Features:
        """Features of uint8 images (B, H, W, C). A row depends on its image alone, not on the batch.

        Raises:
            UserError: the images are not uint8, or not of such a shape.
        """


class FeatureExtractor(Component):
    """Turns images into vectors in which distributions are compared. Light until ``build``, which imports torch."""

    kind: ClassVar[str] = "feature_extractors"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    learns: ClassVar[bool] = False
    """Whether ``fit`` has to be called, on real training images, before ``build``."""
    knows_classes: ClassVar[bool] = True
    """Whether class scores are of the dataset's own classes; if not, they are used for the inception score alone."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, fit=check_fit, learn=check_fit, build=_checked_build)

    def distance_names(self) -> dict[str, str]:
        """The names of Fréchet distances in ``features`` and ``spatial``.

        ``"fid"`` and ``"sfid"`` belong to the Inception network of the FID paper alone, with its published weights.
        """
        return {"features": "frechet_distance", "spatial": "spatial_frechet_distance"}

    def check_images(self, info: ImageInfo) -> None:
        """Raises GridError if the extractor does not take images of such a size, with such channels or so few classes."""

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns from real training images, on the CPU and without a word. Called only where ``learns`` is true.

        A part has this method or ``learn``.
        """
        if type(self).learn is FeatureExtractor.learn:
            raise TypeError(f"feature extractor {self.name!r} has nothing to learn: learns is False")
        from rarkit.engine.learning import Learning

        return self.learn(reader, seed, Learning())

    def learn(self, reader: ImageReader, seed: int, learning: Learning) -> LearnedState:
        """Learns as ``fit`` does, with the engine: for what is trained by gradient descent.

        Args:
            reader: real training images.
            seed: decides all that is drawn.
            learning: trains a ``Task``, on the stage's device and processes, with progress, log and checkpoints.
        """
        return self.fit(reader, seed)

    def reference_batch(self) -> ReferenceBatch | None:
        """The real images that a published protocol compares with; None for the dataset's own training images."""
        return None

    @final
    def lacking(self) -> list[str]:
        """What cannot be measured against the reference batch, in a sentence each. Raises DatasetError if it is missing."""
        batch = self.reference_batch()
        return [] if batch is None else batch.lacking(self.distance_names())

    @abstractmethod
    def build(self, state: LearnedState, device: str) -> FeatureModel:
        """The extractor, ready to work; ``state`` is what ``fit`` returned, empty where ``learns`` is false."""


def _checked_build(part: FeatureExtractor, build: Callable[..., Any], state: LearnedState, device: str) -> FeatureModel:
    model = build(state, device)
    if not isinstance(model, FeatureModel):
        raise broken(part, f"builds {type(model).__name__}; it must build a FeatureModel")
    model._part = part
    return model


def _checked_call(model: FeatureModel, call: Callable[[Tensor], Any], images_BHWC: Tensor) -> Features:
    import torch

    part = model._part
    if part is None:
        return call(images_BHWC)  # type: ignore[no-any-return]
    check_tensor(
        f"feature extractor {part.name!r}", "images", images_BHWC, "uint8", "BHWC", "levels from 0 to 255, the channels last"
    )
    features = call(images_BHWC)
    if not isinstance(features, Features):
        raise broken(part, f"returns {type(features).__name__}; it must return Features")
    tensors = {"features": features.features_BF, "class scores": features.logits_BC, "spatial features": features.spatial_BS}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tensor.ndim != 2 or len(tensor) != len(images_BHWC):
            raise broken(
                part,
                f"returns {name} of {tensor.dtype} {tuple(tensor.shape)} for {len(images_BHWC)} images; they must be float32, one "
                "row for each image",
            )
        if not tensor.isfinite().all():
            raise broken(part, f"returns {name} that are not finite (NaN or infinity)")
    widths = tuple(None if tensor is None else tensor.shape[1] for tensor in tensors.values())
    if model._widths and widths != model._widths:
        raise broken(part, f"returns {', '.join(tensors)} of widths {widths}; in the batch before they were {model._widths}")
    model._widths = widths
    return features
