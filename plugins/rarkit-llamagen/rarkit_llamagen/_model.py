"""LlamaGen's network on a device.

Shape letters: B batch, C channels, H, W height and width of image or grid, Z width of a code.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from rarkit.tokenizers import NetworkModel, nearest_codes
from rarkit_llamagen._network import VQNetwork


@final
class LlamaGenModel(NetworkModel):
    """Images are from −1 to 1. Decoded levels are rounded, which the published code does by adding a half and cutting off."""

    title: ClassVar[str] = "llamagen_vq"
    signed: ClassVar[bool] = True
    network: VQNetwork

    def latents(self, images_BCHW: Tensor) -> Tensor:
        return self.network.encode(images_BCHW)

    def codes(self, latents_BZHW: Tensor) -> Tensor:
        return nearest_codes(functional.normalize(latents_BZHW, dim=1), self.network.quantize.codebook())

    def images(self, codes_BHW: Tensor) -> Tensor:
        return self.network.decode(codes_BHW)
