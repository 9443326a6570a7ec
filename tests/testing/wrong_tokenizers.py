"""A tokenizer that breaks the promise which ``fault`` names.

Shape letters: B batch, H and W height and width, C channels (1).
"""

from __future__ import annotations

import itertools
from typing import Literal, final

import numpy as np

from rarkit import ImageInfo, Tokenizer, TokenizerModel
from rarkit.errors import GridError

COUNTER = itertools.count()
GREY = ImageInfo(8, 8, 1, tuple("abc"))
FITTED = ("fit", "hashed", "lists", "seeded_globally")


@final
class Levels(Tokenizer):
    """Each pixel is a token."""

    name: Literal["levels"] = "levels"
    fault: Literal[
        "none",
        "range",
        "decode",
        "batch",
        "large_batch",
        "large_batch_of_codes",
        "grid",
        "fit",
        "hashed",
        "lists",
        "seeded_globally",
        "silent",
        "black",
        "dark",
        "faint",
        "bright",
        "negative",
        "upside_down",
        "mirrored",
        "transposed",
        "codes_upside_down",
        "codes_transposed",
        "zeros",
        "one_image",
        "random",
        "view_of_images",
        "view_of_codes",
        "writes_images",
        "writes_codes",
        "one_by_one",
        "int32",
        "squeezed",
    ] = "none"
    """What is wrong."""

    @property
    def learns(self):
        return self.fault in FITTED

    def fit(self, reader, seed):
        match self.fault:
            case "fit":
                return {"drawn": np.array(next(COUNTER))}
            case "hashed":
                return {"drawn": np.array(hash("levels"))}
            case "lists":
                return {"drawn": np.array(["levels"])}
            case "seeded_globally":
                np.random.seed(seed)
                return {"drawn": np.random.random(3)}
        return {} if self.fault == "silent" else super().fit(reader, seed)

    def codebook_size(self):
        return 255 if self.fault == "range" else 256

    def grid(self, info):
        if info.channels != 1:
            raise GridError("levels takes grey images")
        return (info.height // 5 if self.fault == "grid" else info.height), info.width

    def build(self, state, device):
        return LevelsModel(self.fault)


@final
class LevelsModel(TokenizerModel):
    def __init__(self, fault):
        self.fault = fault

    def encode(self, images_BHWC):
        import torch

        codes_BHW, square = images_BHWC.long()[..., 0], images_BHWC.shape[1] == images_BHWC.shape[2]
        match self.fault:
            case "range":
                return codes_BHW.clamp(min=255)
            case "batch":
                return (codes_BHW + images_BHWC.long().sum()) % 256
            case "large_batch" if len(codes_BHW) > 16:
                return torch.cat([codes_BHW[:16], torch.zeros_like(codes_BHW[16:])])
            case "zeros":
                return torch.zeros_like(codes_BHW)
            case "codes_upside_down":
                return codes_BHW.flip(1)
            case "codes_transposed" if square:
                return codes_BHW.transpose(1, 2)
            case "random":
                return (codes_BHW + torch.randint(3, codes_BHW.shape)) % 256
            case "view_of_images":
                return images_BHWC.view(len(images_BHWC), -1).long().reshape(codes_BHW.shape)
            case "writes_images":
                images_BHWC.clamp_(max=254)
            case "int32":
                return codes_BHW.int()
            case "squeezed":
                return codes_BHW.squeeze(0)
        return codes_BHW

    def decode(self, codes_BHW):
        import torch

        images_BHWC, square = codes_BHW.byte()[..., None], codes_BHW.shape[1] == codes_BHW.shape[2]
        match self.fault:
            case "decode" if codes_BHW.max() == 255:
                return images_BHWC.float()
            case "large_batch_of_codes" if len(codes_BHW) > 16:
                return images_BHWC.roll(1, 0)
            case "black":
                return torch.zeros_like(images_BHWC)
            case "dark":
                return images_BHWC // 128
            case "faint":
                return images_BHWC // 8 + 112
            case "bright":
                return (images_BHWC.int() + 100).clamp(max=255).byte()
            case "negative":
                return 255 - images_BHWC
            case "upside_down" | "codes_upside_down":
                return images_BHWC.flip(1)
            case "mirrored":
                return images_BHWC.flip(2)
            case "transposed" | "codes_transposed" if square:
                return images_BHWC.transpose(1, 2)
            case "one_image":
                return (torch.arange(images_BHWC[0].numel()) % 256).byte().reshape(images_BHWC[:1].shape).expand_as(images_BHWC)
            case "view_of_codes":
                return codes_BHW.view(len(codes_BHW), -1).byte().reshape(images_BHWC.shape)
            case "writes_codes":
                codes_BHW[:, 0, 0] = 0
            case "one_by_one":
                assert len(codes_BHW) <= 1
        return images_BHWC
