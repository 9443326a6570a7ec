"""What a tokenizer promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageBlock, ImageInfo, ImageReader
from rarkit.testing.part_suite import PartSuite
from rarkit.tokenizers.base import Tokenizer, TokenizerModel

if TYPE_CHECKING:
    from torch import Tensor


@final
class ArrayReader(ImageReader):
    """Images that are already in memory, as a reader."""

    def __init__(self, images_NHWC: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> None:
        self._images, self._labels = images_NHWC, labels_N

    def __len__(self) -> int:
        return len(self._labels)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            part = slice(first, min(first + rows, stop))
            yield ImageBlock(self._images[part], self._labels[part])


def random_images(info: ImageInfo, count: int, seed: int = 0) -> ImageBlock:
    """Uniform noise with labels in turn."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, info.height, info.width, info.channels), dtype=np.uint8)
    return ImageBlock(images, np.arange(count, dtype=np.int64) % info.num_classes)


class TokenizerSuite(PartSuite, ABC):
    """Set ``parts``, and say by ``info`` which images they take."""

    parts: ClassVar[Sequence[Tokenizer]]
    device: ClassVar[str] = "cpu"

    @abstractmethod
    def info(self) -> ImageInfo:
        """The images to test with."""

    def _built(self, part: Tokenizer) -> TokenizerModel:
        block = random_images(self.info(), 64)
        state = part.fit(ArrayReader(block.images_NHWC, block.labels_N), 0) if part.learns else {}
        return part.build(state, self.device)

    def _images(self) -> Tensor:
        import torch

        return torch.from_numpy(random_images(self.info(), 5, seed=1).images_NHWC)

    def test_codes_are_a_grid_of_the_codebook(self) -> None:
        import torch

        for part in self.parts:
            codes_BHW = self._built(part).encode(self._images())
            assert codes_BHW.dtype == torch.int64
            assert tuple(codes_BHW.shape) == (5, *part.grid(self.info()))
            assert ((codes_BHW >= 0) & (codes_BHW < part.codebook_size())).all()

    def test_every_code_decodes_to_an_image(self) -> None:
        import torch

        for part in self.parts:
            height, width = part.grid(self.info())
            codes = torch.arange(part.codebook_size())
            codes_BHW = codes.repeat(height * width)[: 4 * height * width].reshape(4, height, width)
            images_BHWC = self._built(part).decode(codes_BHW)
            assert images_BHWC.dtype == torch.uint8
            assert tuple(images_BHWC.shape) == (4, self.info().height, self.info().width, self.info().channels)

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        import torch

        for part in self.parts:
            model, images_BHWC = self._built(part), self._images()
            codes_BHW = model.encode(images_BHWC)
            alone = torch.cat([model.encode(images_BHWC[row : row + 1]) for row in range(5)])
            assert torch.equal(alone, codes_BHW)
            decoded = torch.cat([model.decode(codes_BHW[row : row + 1]) for row in range(5)])
            assert torch.equal(decoded, model.decode(codes_BHW))

    def test_what_it_learns_is_a_function_of_data_and_seed(self) -> None:
        for part in self.parts:
            if part.learns:
                block = random_images(self.info(), 64)
                reader = ArrayReader(block.images_NHWC, block.labels_N)
                first, second = part.fit(reader, 3), part.fit(reader, 3)
                assert first.keys() == second.keys()
                assert all(np.array_equal(first[name], second[name]) for name in first)
