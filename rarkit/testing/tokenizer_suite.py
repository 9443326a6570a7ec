"""The conformance suite of tokenizers.

Shape letters: B batch, H and W height and width of grid or image, C channels.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rarkit.images import ImageInfo
from rarkit.testing.failure import require, trying
from rarkit.testing.image_suite import ImageSuite, shown, strided
from rarkit.testing.part_suite import untouched_randomness
from rarkit.testing.resemblance import faults_of_likeness, nearness
from rarkit.tokenizers.base import Tokenizer, TokenizerModel

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 64


class TokenizerSuite(ImageSuite, ABC):
    """Set ``parts`` to instances; override ``info``, ``device``, ``tolerance`` and ``reconstructs`` as needed."""

    parts: ClassVar[Sequence[Tokenizer]] = ()
    tolerance: ClassVar[int] = 0
    """Largest difference of a pixel when its image is decoded in another batch, in levels of 0 to 255."""
    reconstructs: ClassVar[bool] = True
    """Whether codes say what is where in the image, so that decoding resembles it; not with random weights."""

    def _refuse(self, part: Tokenizer, info: ImageInfo) -> None:
        part.grid(info)

    def test_codes_are_a_grid_of_the_codebook(self, part: Tokenizer) -> None:
        import torch

        for info in self._variants(part):
            model, given = self._built(part, info), f"given {shown(info)}"
            for images_BHWC in (self._images(info, 5), self._pictures(info, 1)):
                original_BHWC = images_BHWC.clone()
                with untouched_randomness(part, given):
                    codes_BHW, again_BHW = (self._codes(part, model, images_BHWC, given) for _ in range(2))
                shape = len(images_BHWC), *part.grid(info)
                what = f"encodes to {codes_BHW.dtype} {tuple(codes_BHW.shape)}"
                cure = f"Codes are int64 of shape {shape}, the grid of each image"
                require(codes_BHW.dtype == torch.int64 and tuple(codes_BHW.shape) == shape, part, given, what, cure)
                outside = codes_BHW[(codes_BHW < 0) | (codes_BHW >= part.codebook_size())]
                cure = f"Codes are in [0, {part.codebook_size()}), the codebook"
                require(not len(outside), part, given, f"encodes to the code {outside[:1].tolist()}", cure)
                unmodified = torch.equal(images_BHWC, original_BHWC)
                require(unmodified, part, given, "modifies the images", "Work on a copy")
                require(torch.equal(codes_BHW, again_BHW), part, given, "encodes differently the second time", "Use no randomness")

    def test_every_code_decodes_to_an_image(self, part: Tokenizer) -> None:
        import torch

        info = self._info(part)
        model, grid = self._built(part), part.grid(info)
        count = math.ceil(part.codebook_size() / math.prod(grid))
        codes_BHW = (torch.arange(count * math.prod(grid)) % part.codebook_size()).reshape(count, *grid).to(self.device)
        for start in range(0, count, AT_ONCE):
            some_BHW = codes_BHW[start : start + AT_ONCE]
            given, original_BHW = f"given the codes {int(some_BHW.min())} to {int(some_BHW.max())}", some_BHW.clone()
            images_BHWC = self._decoded(part, model, some_BHW, given)
            shape = len(some_BHW), info.height, info.width, info.channels
            what = f"decodes to {images_BHWC.dtype} {tuple(images_BHWC.shape)}"
            well = images_BHWC.dtype == torch.uint8 and tuple(images_BHWC.shape) == shape
            require(well, part, given, what, f"Images are uint8 of shape {shape}")
            require(torch.equal(some_BHW, original_BHW), part, given, "modifies the codes", "Work on a copy")

    def test_an_image_does_not_depend_on_its_batch(self, part: Tokenizer) -> None:
        import torch

        info = self._info(part)
        model, images_BHWC = self._built(part), self._images(info, 5)
        codes_BHW = self._codes(part, model, images_BHWC, "given 5 images")
        decoded_BHWC = self._decoded(part, model, codes_BHW, "given the codes of 5 images").int()
        for sizes in ([1] * 5, [2, 3]):
            given = f"given 5 images in batches of {sizes}"
            split_BHW = torch.cat([self._codes(part, model, some, given) for some in images_BHWC.split_with_sizes(sizes)])
            cure = "A row depends on its own image alone"
            require(torch.equal(split_BHW, codes_BHW), part, given, "encodes an image differently than in one batch", cure)
            parts = [self._decoded(part, model, some, given) for some in codes_BHW.split_with_sizes(sizes)]
            error = int((torch.cat(parts).int() - decoded_BHWC).abs().max())
            require(
                error <= self.tolerance, part, given, f"decodes an image differently than in one batch, by {error} levels", cure
            )
        # Sampling and the tokenize stage work on hundreds at once.
        times = self._times(info, 5)
        given, many_BHW = f"given the 5 images {times} times in one batch", codes_BHW.repeat(times, 1, 1)
        again_BHW = self._codes(part, model, images_BHWC.repeat(times, 1, 1, 1), given)
        require(torch.equal(again_BHW, many_BHW), part, given, "encodes an image differently than in a batch of 5", cure)
        difference = self._decoded(part, model, many_BHW, given).int() - decoded_BHWC.repeat(times, 1, 1, 1)
        error = int(difference.abs().max())
        fault = f"decodes an image differently than in a batch of 5, by {error} levels"
        require(error <= self.tolerance, part, given, fault, cure)

    def test_memory_may_be_in_any_order(self, part: Tokenizer) -> None:
        import torch

        info = self._info(part)
        model, images_BHWC = self._built(part), self._images(info, 3)
        codes_BHW = self._codes(part, model, images_BHWC, "given 3 images")
        given, cure = "given images that are not contiguous", "Use reshape instead of view, or contiguous()"
        strided_BHW = self._codes(part, model, strided(images_BHWC), given)
        require(torch.equal(strided_BHW, codes_BHW), part, given, "gives other codes", cure)
        given, decoded_BHWC = "given codes that are not contiguous", self._decoded(part, model, codes_BHW, "given codes").int()
        error = int((self._decoded(part, model, strided(codes_BHW), given).int() - decoded_BHWC).abs().max())
        require(error <= self.tolerance, part, given, f"decodes to other images, by {error} levels", cure)

    def test_different_images_have_different_codes(self, part: Tokenizer) -> None:
        info, codes = self._info(part), part.codebook_size()
        if codes == 1:
            return
        model, images_BHWC = self._built(part), self._pictures(info, 8)
        codes_BHW = self._codes(part, model, images_BHWC, "given 8 pictures")
        same = (codes_BHW == codes_BHW[:1]).all()
        value = f"gives all of them the same codes, {int(codes_BHW.min())} to {int(codes_BHW.max())}"
        require(not same, part, "given 8 different pictures", value, "Let encode return what it computed")
        grids_BHW = self._random_codes(part, info, 8)
        decoded_BHWC = self._decoded(part, model, grids_BHW, "given random codes")
        same, highest = (decoded_BHWC == decoded_BHWC[:1]).all(), int(decoded_BHWC.max())
        value = f"decodes all of them to the same image, of levels up to {highest}"
        require(
            not same, part, "given 8 different grids of codes", value, "Let decode return what it computed, in levels of 0 to 255"
        )
        value = f"decodes to levels up to {highest}"
        require(highest > 1, part, "given random codes", value, "Levels are from 0 to 255, not from 0 to 1")

    def test_codes_have_their_place_in_the_image(self, part: Tokenizer) -> None:
        """Other pixels in one half of an image change the codes of that half, and other codes its pixels."""
        for info in self._variants(part) if self.reconstructs else ():
            grid, model = part.grid(info), self._built(part, info)
            if min(grid) == 1 or part.codebook_size() == 1:
                continue
            images_BHWC, codes_BHW = self._pictures(info, 16), self._random_codes(part, info, 16)
            # Half of them against the other half.
            for axis, half in ((1, "lower"), (2, "right")):
                encode = partial(self._codes, part, model, given="given mixed pictures")
                near, far = nearness(axis, images_BHWC, grid, encode)
                given = f"given {shown(info)} whose {half} halves differ"
                fault = f"gives other codes to {near:.0%} of the {half} half and {far:.0%} of the other"
                cure = "Code (r, c) is of row r and column c of patches; codes without a place form a grid of one row"
                require(near > 1.5 * far, part, given, fault, cure)
                near, far = nearness(axis, codes_BHW, grid, partial(self._decoded, part, model, given="given mixed codes"))
                given = f"given codes of {shown(info)} that differ in the {half} half"
                fault = f"changes pixels by {near:.1f} levels in the {half} half and by {far:.1f} in the other"
                require(near > 1.5 * far, part, given, fault, cure)

    def test_a_decoded_image_resembles_its_image(self, part: Tokenizer) -> None:
        for info in self._variants(part) if self.reconstructs else ():
            model, images_BHWC = self._built(part, info), self._pictures(info, 16)
            codes_BHW = self._codes(part, model, images_BHWC, "given 16 pictures")
            decoded_BHWC = self._decoded(part, model, codes_BHW, "given the codes of 16 pictures")
            for fault in faults_of_likeness(decoded_BHWC.cpu().double(), images_BHWC.cpu().double()):
                cure = "decode must undo encode; with random weights, set reconstructs = False in the suite"
                require(False, part, f"given {shown(info)}, encoded and decoded", fault, cure)

    def test_other_images_have_a_grid_or_are_refused(self, part: Tokenizer) -> None:
        base = self._info(part)
        for height in (1, 2, 3, 7, 8, 16, 60, 256):
            for channels in (1, 3):
                info = replace(base, height=height, width=2 * height, channels=channels)
                if self._takes(part, info):
                    grid = part.grid(info)
                    well = len(grid) == 2 and all(isinstance(side, int) and side >= 1 for side in grid)
                    require(well, part, f"given {shown(info)}", f"has the grid {grid}", "A grid is a height and a width, from 1")

    def _variants(self, part: Tokenizer) -> list[ImageInfo]:
        """The images to test with, and others of their sides: square ones, wide ones and high ones."""
        info = self._info(part)
        sides = {
            (info.height, info.width),
            (info.height, info.height),
            (info.height, 2 * info.height),
            (2 * info.height, info.height),
        }
        variants = [replace(info, height=height, width=width) for height, width in sorted(sides)]
        return [info, *(other for other in variants if other != info and self._takes(part, other))]

    def _random_codes(self, part: Tokenizer, info: ImageInfo, count: int) -> Tensor:
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randint(part.codebook_size(), (count, *part.grid(info)), generator=generator).to(self.device)

    def _codes(self, part: Tokenizer, model: TokenizerModel, images_BHWC: Tensor, given: str) -> Tensor:
        with trying(part, given, "encode takes uint8 images (B, H, W, C) in any batch"):
            return model.encode(images_BHWC)

    def _decoded(self, part: Tokenizer, model: TokenizerModel, codes_BHW: Tensor, given: str) -> Tensor:
        with trying(part, given, "decode takes all codes of the codebook, in grids of any batch"):
            return model.decode(codes_BHW)
