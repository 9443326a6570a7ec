"""Codes to images with the decoder of LlamaGen's VQ tokenizers (Sun et al. 2024).

Shape letters: B batch, H and W height and width, C channels.
"""

from __future__ import annotations

from typing import Any, final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rarkit_llamagen._network import VQNetwork

AT_ONCE = 16


@final
class ImageDecoder(nn.Module):
    """The convolutional decoder. Move it with ``to``."""

    def __init__(self, settings: dict[str, Any], weights: str) -> None:
        """``settings`` has the ``sizes`` of the network; the file has its weights."""
        super().__init__()
        with torch.device("meta"):
            self.network = VQNetwork(*settings["sizes"])
        del self.network.encoder, self.network.quant_conv
        self.network.load_state_dict(load_file(weights), assign=True)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width) to uint8 images (B, H, W, C), on the device of the decoder."""
        parts = torch.split(codes_BHW.to(self.network.quantize.embedding.weight.device), AT_ONCE)
        return torch.cat([self._images(part_BHW) for part_BHW in parts])

    def _images(self, codes_BHW: Tensor) -> Tensor:
        levels_BCHW = self.network.decode(codes_BHW).add(1.0).mul_(0.5).clamp(0.0, 1.0).mul_(255.0)
        images_BHWC: Tensor = levels_BCHW.round_().byte().permute(0, 2, 3, 1).contiguous()
        return images_BHWC
