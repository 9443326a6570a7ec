"""What a feature extractor promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from rarkit.features.base import FeatureExtractor, FeatureModel
from rarkit.images import ImageInfo
from rarkit.testing.part_suite import PartSuite
from rarkit.testing.tokenizer_suite import ArrayReader, random_images


class FeatureExtractorSuite(PartSuite, ABC):
    """Set ``parts``, and say by ``info`` which images they take."""

    parts: ClassVar[Sequence[FeatureExtractor]]
    device: ClassVar[str] = "cpu"
    tolerance: ClassVar[float] = 1e-5

    @abstractmethod
    def info(self) -> ImageInfo:
        """The images to test with."""

    def _built(self, part: FeatureExtractor) -> FeatureModel:
        part.check_images(self.info())
        block = random_images(self.info(), 64)
        state = part.fit(ArrayReader(block.images_NHWC, block.labels_N), 0) if part.learns else {}
        return part.build(state, self.device)

    def test_features_are_finite_vectors(self) -> None:
        import torch

        for part in self.parts:
            seen = self._built(part)(torch.from_numpy(random_images(self.info(), 6).images_NHWC))
            assert seen.features_BF.dtype == torch.float32
            assert seen.features_BF.ndim == 2
            assert len(seen.features_BF) == 6
            assert seen.features_BF.isfinite().all()
            assert seen.logits_BC is None or len(seen.logits_BC) == 6

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        import torch

        for part in self.parts:
            model, images = self._built(part), torch.from_numpy(random_images(self.info(), 6).images_NHWC)
            together_BF = model(images).features_BF
            alone_BF = torch.cat([model(images[row : row + 1]).features_BF for row in range(6)])
            assert (together_BF - alone_BF).abs().max() <= self.tolerance

    def test_only_inception_is_called_fid(self) -> None:
        for part in self.parts:
            assert part.distance_name != "fid" or "inception" in part.name, "a distance in other features is never called FID"
