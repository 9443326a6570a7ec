"""Codes to images with the decoder of rarkit's tokenizer ``vq``.

Shape letters: B batch, H, W, C height, width, channels of an image (of a grid without C), V codebook size, Z numbers of a token's
vector.
"""

from __future__ import annotations

from typing import Any, final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rarkit_vq._convolutions import ConvolutionalDecoder
from rarkit_vq._levels import as_levels
from rarkit_vq._patch_networks import PatchDecoder

PIXELS_AT_ONCE = 2**20


@final
class ImageDecoder(nn.Module):
    """A table of vectors, and the decoder. Move it with ``to``."""

    def __init__(self, settings: dict[str, Any], weights: str) -> None:
        """``settings`` has the start and the sizes; the file has ``table`` (V, Z) and the decoder's weights."""
        super().__init__()
        tensors = load_file(weights)
        self.table_VZ = nn.Parameter(tensors.pop("table"), requires_grad=False)
        self.downsample = int(settings["downsample"])
        sizes = self.downsample, settings["width"], settings["blocks"], settings["channels"]
        with torch.device("meta"):
            dimensions = self.table_VZ.shape[1]
            self.decoder = PatchDecoder(*sizes) if settings["start"] == "kmeans" else ConvolutionalDecoder(*sizes, dimensions)
        self.decoder.load_state_dict(tensors, assign=True)
        self.requires_grad_(False)

    @torch.no_grad()
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width) to uint8 images (B, H, W, C), on the device of the decoder."""
        pixels = codes_BHW.shape[1] * codes_BHW.shape[2] * self.downsample**2
        parts = torch.split(codes_BHW.to(self.table_VZ.device), max(1, PIXELS_AT_ONCE // pixels))
        return torch.cat([as_levels(self.decoder(self.table_VZ[part_BHW].movedim(-1, 1))) for part_BHW in parts])
