"""The base of suites for parts that read images and may have to be fitted first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rarkit.errors import GridError
from rarkit.images import ImageInfo
from rarkit.testing.array_reader import random_images
from rarkit.testing.digests import digest, learned, pictures
from rarkit.testing.failure import require, trying
from rarkit.testing.part_suite import PartSuite, untouched_randomness

if TYPE_CHECKING:
    from torch import Tensor

CLASSES = tuple("abc")
SIZES = ((8, 8), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256), (384, 384), (512, 512))


_KEPT: dict[Any, Mapping[str, Any]] = {}
"""What parts learned, by their settings and the images: most tests need it."""
MOST_KEPT = 16


class ImageSuite(PartSuite, ABC):
    """Base of ``TokenizerSuite`` and ``FeatureExtractorSuite``."""

    parts: ClassVar[Sequence[Any]] = ()
    info: ClassVar[ImageInfo | None] = None
    """Shape and classes of the images to test with; by default the smallest square images that a part takes."""
    device: ClassVar[str] = "cpu"

    @abstractmethod
    def _refuse(self, part: Any, info: ImageInfo) -> None:
        """Raises GridError if the part does not take such images."""

    def test_a_part_that_learns_nothing_says_so(self, part: Any) -> None:
        if part.learns:
            return
        try:
            learns = part.fit(None, 0)
        except TypeError as error:
            well = "nothing to learn" in str(error)
            require(well, part, "fitted", f"raises {error}", "Leave out fit, or set learns = True")
            return
        require(False, part, "fitted", f"returns {learns!r}, but learns is False", "Leave out fit, or set learns = True")

    def test_what_it_learns_is_a_function_of_data_and_seed(self, part: Any) -> None:
        if not part.learns:
            return
        given = "fitted twice to the same images with the same seed"
        with untouched_randomness(part, "fitted"):
            first, second = (self._learned(part, afresh=True) for _ in range(2))
        cure = "Derive all randomness from the seed that fit gets"
        require(first.keys() == second.keys(), part, given, f"learns {sorted(first)}, then {sorted(second)}", cure)
        for name, values in first.items():
            array = isinstance(values, np.ndarray | np.generic) and values.dtype.kind in "biuf"
            what = f"learns {name!r}, which is {type(values).__name__} ({getattr(values, 'dtype', 'no dtype')})"
            require(array, part, "fitted", what, "Return arrays of numbers by name, which the store can keep")
            require(digest(values) == digest(second[name]), part, given, f"learns another {name!r}", cure)

    def test_it_is_the_same_in_another_process(self, part: Any) -> None:
        self._is_the_same_elsewhere(part, info=self._info(part), device=self.device)

    def _info(self, part: Any) -> ImageInfo:
        if self.info is not None:
            return self.info
        for height, width in SIZES:
            for channels in (3, 1):
                info = ImageInfo(height, width, channels, CLASSES)
                if self._takes(part, info):
                    return info
        raise AssertionError(f"{part!r} takes no square images of 8 to 512 pixels: set info in its suite to those it takes")

    def _takes(self, part: Any, info: ImageInfo) -> bool:
        try:
            with trying(part, f"asked about {shown(info)}", "Raise GridError for images that it does not take"):
                self._refuse(part, info)
        except AssertionError as failure:
            if isinstance(failure.__cause__, GridError):
                return False
            raise
        return True

    def _learned(self, part: Any, info: ImageInfo | None = None, afresh: bool = False) -> Mapping[str, Any]:
        info = info or self._info(part)
        key = type(part), part.model_dump_json(), info
        if afresh or key not in _KEPT:
            if len(_KEPT) >= MOST_KEPT:
                _KEPT.clear()
            with trying(part, f"fitted to 64 images, {shown(info)}"):
                _KEPT[key] = learned(part, info)
        return _KEPT[key]

    def _built(self, part: Any, info: ImageInfo | None = None) -> Any:
        # As they are kept and read again: a number without axes is then an array of one.
        state = {name: np.atleast_1d(values) for name, values in self._learned(part, info).items()}
        with trying(part, f"built on {self.device}"):
            return part.build(state, self.device)

    def _pictures(self, info: ImageInfo, count: int) -> Tensor:
        import torch

        return torch.from_numpy(pictures(info, count)).to(self.device)

    def _times(self, info: ImageInfo, count: int) -> int:
        """How often to repeat images for a large batch: to more than 64, or to as many as are quick to compute."""
        pixels = count * info.height * info.width * info.channels
        return max(2, min(14, 2**18 // pixels))

    def _images(self, info: ImageInfo, count: int) -> Tensor:
        """Noise, which has all levels."""
        import torch

        return torch.from_numpy(random_images(info, count, seed=1).images_NHWC).to(self.device)


def shown(info: ImageInfo) -> str:
    """Size and channels, in words."""
    return f"images of {info.height}×{info.width} with {info.channels} channel{'s' * (info.channels > 1)}"


def strided(tensor: Tensor) -> Tensor:
    """The same values in another order in memory: the second axis varies faster than the third."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)
