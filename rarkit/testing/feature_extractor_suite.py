"""The conformance suite of feature extractors."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import ClassVar

from rarkit.features.base import FeatureExtractor
from rarkit.testing.image_suite import ImageSuite


class FeatureExtractorSuite(ImageSuite, ABC):
    """Set ``parts`` to instances, and define ``info`` for the images they take; override ``device`` and ``tolerance`` as needed."""

    parts: ClassVar[Sequence[FeatureExtractor]]
    tolerance: ClassVar[float] = 1e-5
    """Largest difference when an image is in another batch, relative to the largest number (absolute if that is below 1)."""

    def test_it_takes_the_images(self) -> None:
        for part in self.parts:
            part.check_images(self.info())

    def test_features_are_finite_vectors(self) -> None:
        import torch

        for part in self.parts:
            images_BHWC = self._images(6)
            original_BHWC = images_BHWC.clone()
            features = self._built(part)(images_BHWC)
            for numbers in (features.features_BF, features.logits_BC, features.spatial_BS):
                if numbers is not None:
                    assert numbers.dtype == torch.float32, f"{part!r} gives {numbers.dtype}"
                    assert numbers.ndim == 2
                    assert len(numbers) == 6
                    assert numbers.isfinite().all()
            assert torch.equal(images_BHWC, original_BHWC), f"{part!r} modifies the images"

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        import torch

        for part in self.parts:
            model, images_BHWC = self._built(part), self._images(6)
            together, alone = model(images_BHWC), [model(image_BHWC) for image_BHWC in images_BHWC.split_with_sizes([1] * 6)]
            for name in ("features_BF", "logits_BC", "spatial_BS"):
                expected = getattr(together, name)
                if expected is not None:
                    error = (torch.cat([getattr(features, name) for features in alone]) - expected).abs().max()
                    allowed = self.tolerance * max(1.0, float(expected.abs().max()))
                    assert error <= allowed, f"{part!r}: {name} of an image differs by {error} in another batch"

    def test_only_inception_is_called_fid(self) -> None:
        for part in self.parts:
            names = part.distance_names()
            assert set(names) == {"features", "spatial"}, f"{part!r} must name its Fréchet distances in features and spatial"
            for name in names.values():
                assert name.strip(), f"{part!r} has an empty name for a Fréchet distance"
                assert "fid" not in name or "inception" in part.name, "only a distance in Inception features may be called FID"
