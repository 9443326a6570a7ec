"""Codes to images, where a code is a patch of pixels.

Shape letters: B batch, H and W height and width, C channels, V codebook size, D values of a patch.
"""

from __future__ import annotations

from typing import Any, final

from safetensors.torch import load_file
from torch import Tensor


@final
class ImageDecoder:
    """Looks the patches up in a table."""

    def __init__(self, settings: dict[str, Any], weights: str) -> None:
        """``settings`` has the height and width of a patch; the file has ``pixels`` (V, D) uint8."""
        self.patch = int(settings["patch"])
        self.pixels_VD = load_file(weights)["pixels"]

    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width) to uint8 images (B, H, W, C), on the CPU."""
        batch, rows, columns = codes_BHW.shape
        cut = self.pixels_VD[codes_BHW.cpu()].reshape(batch, rows, columns, self.patch, self.patch, -1).transpose(2, 3)
        return cut.reshape(batch, rows * self.patch, columns * self.patch, -1)
