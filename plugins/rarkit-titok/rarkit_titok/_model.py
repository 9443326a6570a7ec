"""TiTok's network on a device.

Shape letters: B batch, C channels, H, W height and width, Z numbers of a code, N tokens of an image.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from rarkit.tokenizers import NetworkModel, nearest_codes
from rarkit_titok._network import TiTokNetwork


@final
class TiTokModel(NetworkModel):
    """Codes and latents form a grid of one row."""

    title: ClassVar[str] = "titok"
    network: TiTokNetwork

    def latents(self, images_BCHW: Tensor) -> Tensor:
        return self.network.encode(images_BCHW)

    def codes(self, latents_BZHW: Tensor) -> Tensor:
        network = self.network
        return nearest_codes(network.scaled(latents_BZHW, 1), network.scaled(network.quantize.embedding.weight, 1))

    def images(self, codes_BHW: Tensor) -> Tensor:
        return self.network.decode(codes_BHW)
