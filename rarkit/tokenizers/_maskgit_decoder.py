"""Codes to images with the decoder of MaskGIT's VQGAN (Chang et al. 2022).

Shape letters: B batch, H and W height and width, C channels, Z channels of a latent.
"""

from __future__ import annotations

from typing import Any, final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rarkit.tokenizers._maskgit_network import MaskGITDecoder, Quantizer

AT_ONCE = 16


@final
class ImageDecoder(nn.Module):
    """The convolutional decoder. Move it with ``to``."""

    def __init__(self, settings: dict[str, Any], weights: str) -> None:
        """``settings`` has the sizes of the network, and how levels are rounded; the file has its weights."""
        super().__init__()
        sizes = settings["hidden_channels"], settings["channel_mult"], settings["num_res_blocks"], settings["z_channels"]
        with torch.device("meta"):
            self.decoder = MaskGITDecoder(3, *sizes)
            self.quantize = Quantizer(settings["codes"], settings["z_channels"])
        self.load_state_dict(load_file(weights), assign=True)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rounds = settings["rounding"] == "nearest"

    @torch.no_grad()
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width) to uint8 images (B, H, W, C), on the device of the decoder."""
        parts = torch.split(codes_BHW.to(self.quantize.embedding.weight.device), AT_ONCE)
        return torch.cat([self._images(part_BHW) for part_BHW in parts])

    def _images(self, codes_BHW: Tensor) -> Tensor:
        latents_BZHW = self.quantize.embedding(codes_BHW).permute(0, 3, 1, 2)
        levels_BCHW = self.decoder(latents_BZHW).clamp(0.0, 1.0).mul_(255.0)
        # Casting cuts off what is behind the point.
        levels_BCHW = levels_BCHW.round_() if self.rounds else levels_BCHW
        images_BHWC: Tensor = levels_BCHW.byte().permute(0, 2, 3, 1).contiguous()
        return images_BHWC
