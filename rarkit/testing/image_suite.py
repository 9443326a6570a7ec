"""The base of suites for parts that read images and may have to be fitted first."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from rarkit.images import ImageInfo
from rarkit.testing.array_reader import ArrayReader, random_images
from rarkit.testing.part_suite import PartSuite

if TYPE_CHECKING:
    from torch import Tensor


class ImageSuite(PartSuite, ABC):
    """Base of ``TokenizerSuite`` and ``FeatureExtractorSuite``."""

    parts: ClassVar[Sequence[Any]]
    device: ClassVar[str] = "cpu"

    @abstractmethod
    def info(self) -> ImageInfo:
        """Shape and classes of the images to test with."""

    def test_what_it_learns_is_a_function_of_data_and_seed(self) -> None:
        for part in self.parts:
            first, second = self._learned(part), self._learned(part)
            assert first.keys() == second.keys()
            for name, values in first.items():
                assert isinstance(values, np.ndarray | np.generic), f"{name!r} is {type(values).__name__}, not an array"
                assert values.dtype.kind in "biuf", f"{name!r} is an array of {values.dtype}, which cannot be stored"
                np.testing.assert_array_equal(second[name], values, f"{part!r} learns another {name!r} from the same data and seed")

    def _learned(self, part: Any) -> Mapping[str, Any]:
        block = random_images(self.info(), 64)
        learned: Mapping[str, Any] = part.fit(ArrayReader(block.images_NHWC, block.labels_N), 3) if part.learns else {}
        return learned

    def _built(self, part: Any) -> Any:
        return part.build(self._learned(part), self.device)

    def _images(self, count: int) -> Tensor:
        import torch

        return torch.from_numpy(random_images(self.info(), count, seed=1).images_NHWC).to(self.device)
