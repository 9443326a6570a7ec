"""The conformance suite of tokenizers."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from rarkit.errors import GridError
from rarkit.testing.image_suite import ImageSuite
from rarkit.tokenizers.base import Tokenizer

AT_ONCE = 64


class TokenizerSuite(ImageSuite, ABC):
    """Set ``parts`` to instances, and define ``info`` for the images they take; override ``device`` and ``tolerance`` as needed."""

    parts: ClassVar[Sequence[Tokenizer]]
    tolerance: ClassVar[int] = 0
    """Largest difference of a pixel when its image is decoded in another batch, in levels of 0 to 255."""

    def test_codes_are_a_grid_of_the_codebook(self) -> None:
        import torch

        for part in self.parts:
            images_BHWC = self._images(5)
            original_BHWC = images_BHWC.clone()
            codes_BHW = self._built(part).encode(images_BHWC)
            assert codes_BHW.dtype == torch.int64
            assert tuple(codes_BHW.shape) == (5, *part.grid(self.info()))
            assert ((codes_BHW >= 0) & (codes_BHW < part.codebook_size())).all()
            assert torch.equal(images_BHWC, original_BHWC), f"{part!r} modifies the images"

    def test_every_code_decodes_to_an_image(self) -> None:
        import torch

        for part in self.parts:
            model, info, cells = self._built(part), self.info(), math.prod(part.grid(self.info()))
            count = math.ceil(part.codebook_size() / cells)
            codes_BHW = (torch.arange(count * cells) % part.codebook_size()).reshape(count, *part.grid(info)).to(self.device)
            for start in range(0, count, AT_ONCE):
                some_BHW = codes_BHW[start : start + AT_ONCE]
                images_BHWC = model.decode(some_BHW)
                assert images_BHWC.dtype == torch.uint8
                assert tuple(images_BHWC.shape) == (len(some_BHW), info.height, info.width, info.channels)

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        import torch

        for part in self.parts:
            model, images_BHWC = self._built(part), self._images(5)
            codes_BHW = model.encode(images_BHWC)
            for sizes in ([1] * 5, [2, 3]):
                split = torch.cat([model.encode(some) for some in images_BHWC.split_with_sizes(sizes)])
                assert torch.equal(split, codes_BHW), f"{part!r} encodes an image differently in another batch"
                decoded = torch.cat([model.decode(some) for some in codes_BHW.split_with_sizes(sizes)]).int()
                error = (decoded - model.decode(codes_BHW).int()).abs().max()
                assert error <= self.tolerance, f"{part!r} decodes an image differently in another batch, by {error}"

    def test_other_images_have_a_grid_or_are_refused(self) -> None:
        for part in self.parts:
            for size in (1, 2, 3, 7, 8, 16, 60, 256):
                for channels in (1, 3):
                    info = replace(self.info(), height=size, width=2 * size, channels=channels)
                    try:
                        grid = part.grid(info)
                    except GridError:
                        continue
                    assert len(grid) == 2, f"{part!r}: {grid} is not a height and a width"
                    assert all(isinstance(side, int) and side >= 1 for side in grid), f"{part!r}: {grid} for {info}"

    def test_a_tokenizer_that_learns_nothing_says_so(self) -> None:
        for part in self.parts:
            if not part.learns:
                with pytest.raises(TypeError, match="nothing to learn"):
                    part.fit(None, 0)  # type: ignore[arg-type]
