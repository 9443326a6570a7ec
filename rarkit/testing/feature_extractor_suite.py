"""The conformance suite of feature extractors.

Shape letters: B batch, H and W height and width, C channels or classes, F features, S spatial features.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rarkit.features.base import FeatureExtractor, FeatureModel, Features
from rarkit.images import ImageInfo
from rarkit.testing.failure import require, trying
from rarkit.testing.image_suite import ImageSuite, shown, strided
from rarkit.testing.part_suite import untouched_randomness

if TYPE_CHECKING:
    from torch import Tensor

ALONE = "A row depends on its own image alone"


class FeatureExtractorSuite(ImageSuite, ABC):
    """Set ``parts`` to instances; override ``info``, ``device`` and ``tolerance`` as needed."""

    parts: ClassVar[Sequence[FeatureExtractor]] = ()
    tolerance: ClassVar[float] = 1e-5
    """Largest difference when an image is in another batch, relative to the largest number (absolute if that is below 1)."""

    def _refuse(self, part: FeatureExtractor, info: ImageInfo) -> None:
        part.check_images(info)

    def test_it_takes_the_images(self, part: FeatureExtractor) -> None:
        info = self._info(part)
        with trying(part, f"given {shown(info)}", "Take the images, or set others as info in the suite"):
            part.check_images(info)

    def test_features_are_finite_vectors(self, part: FeatureExtractor) -> None:
        import torch

        info = self._info(part)
        model = self._built(part)
        for images_BHWC in (self._images(info, 6), self._pictures(info, 2), torch.zeros_like(self._images(info, 2))):
            given, original_BHWC = f"given {len(images_BHWC)} {shown(info)}", images_BHWC.clone()
            with untouched_randomness(part, given):
                for name, numbers in _named(self._features(part, model, images_BHWC, given)).items():
                    what = f"gives {name} of {numbers.dtype} {tuple(numbers.shape)}"
                    well = numbers.dtype == torch.float32 and numbers.ndim == 2 and len(numbers) == len(images_BHWC)
                    require(well, part, given, what, "They are float32, one row for each image")
                    require(
                        numbers.isfinite().all(), part, given, f"gives {name} that are not finite", "Features are finite numbers"
                    )
            require(torch.equal(images_BHWC, original_BHWC), part, given, "modifies the images", "Work on a copy")

    def test_an_image_does_not_depend_on_its_batch(self, part: FeatureExtractor) -> None:
        import torch

        info = self._info(part)
        model, images_BHWC = self._built(part), self._images(info, 6)
        together = _named(self._features(part, model, images_BHWC, "given 6 images"))
        for sizes in ([1] * 6, [2, 4]):
            given = f"given 6 images in batches of {sizes}"
            apart = [_named(self._features(part, model, some, given)) for some in images_BHWC.split_with_sizes(sizes)]
            for name, expected in together.items():
                error = self._error(torch.cat([named[name] for named in apart]), expected)
                require(
                    error <= self.tolerance, part, given, f"gives {name} that differ by {error:.2g} from those of one batch", ALONE
                )
        # The evaluation works on hundreds at once.
        times = self._times(info, 6)
        given = f"given the 6 images {times} times in one batch"
        for name, numbers in _named(self._features(part, model, images_BHWC.repeat(times, 1, 1, 1), given)).items():
            error = self._error(numbers, together[name].repeat(times, 1))
            fault = f"gives {name} that differ by {error:.2g} from those in a batch of 6"
            require(error <= self.tolerance, part, given, fault, ALONE)

    def test_memory_may_be_in_any_order(self, part: FeatureExtractor) -> None:
        info, given = self._info(part), "given images that are not contiguous"
        model, images_BHWC = self._built(part), self._images(info, 3)
        together = _named(self._features(part, model, images_BHWC, "given 3 images"))
        for name, numbers in _named(self._features(part, model, strided(images_BHWC), given)).items():
            error = self._error(numbers, together[name])
            require(error <= self.tolerance, part, given, f"gives other {name}, by {error:.2g}", "Use reshape instead of view")

    def test_different_images_have_different_features(self, part: FeatureExtractor) -> None:
        info = self._info(part)
        model, images_BHWC = self._built(part), self._pictures(info, 8)
        features_BF = self._features(part, model, images_BHWC, "given 8 pictures").features_BF
        same = (features_BF == features_BF[:1]).all()
        require(not same, part, "given 8 different pictures", "gives all of them the same features", "Return what was computed")
        again_BF = self._features(part, model, images_BHWC, "given 8 pictures again").features_BF
        error = self._error(again_BF, features_BF)
        require(
            error <= self.tolerance,
            part,
            "given 8 pictures twice",
            f"gives features that differ by {error:.2g}",
            "Use no randomness",
        )

    def test_only_inception_is_called_fid(self, part: FeatureExtractor) -> None:
        names, given = part.distance_names(), "asked for the names of its Fréchet distances"
        require(
            set(names) == {"features", "spatial"}, part, given, f"names {sorted(names)}", "Name those in features and in spatial"
        )
        for name in names.values():
            require(name.strip(), part, given, "gives an empty one", "Give both a name")
            allowed = "fid" not in name or "inception" in part.name
            require(allowed, part, given, f"gives {name!r}", "Only a distance in Inception features may be called FID")

    def _features(self, part: FeatureExtractor, model: FeatureModel, images_BHWC: Tensor, given: str) -> Features:
        with trying(part, given, "A model takes uint8 images (B, H, W, C) in any batch"):
            return model(images_BHWC)

    def _error(self, actual: Tensor, expected: Tensor) -> float:
        return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1.0))


def _named(features: Features) -> dict[str, Tensor]:
    named = {"features": features.features_BF, "class scores": features.logits_BC, "spatial features": features.spatial_BS}
    return {name: numbers for name, numbers in named.items() if numbers is not None}
