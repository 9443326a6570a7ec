"""A ``VQModel`` of diffusers on a device.

Shape letters: B batch, C channels, H, W height and width of image or grid, Z width of a code.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, final

import torch
from diffusers import VQModel
from torch import Tensor

from rarkit.errors import WeightsError
from rarkit.tokenizers import NetworkModel, nearest_codes


@final
class DiffusersModel(NetworkModel):
    """Images are from −1 to 1."""

    title: ClassVar[str] = "diffusers_vq"
    signed: ClassVar[bool] = True
    network: VQModel

    def latents(self, images_BCHW: Tensor) -> Tensor:
        latents_BZHW: Tensor = self.network.encode(images_BCHW).latents
        return latents_BZHW

    def codes(self, latents_BZHW: Tensor) -> Tensor:
        # Not the library's quantizer, which compares all latents of a batch with all codes at once: gigabytes with large grids.
        return nearest_codes(latents_BZHW, self.network.quantize.embedding.weight)

    def images(self, codes_BHW: Tensor) -> Tensor:
        network, shape = self.network, (*codes_BHW.shape, self.network.quantize.vq_embed_dim)
        if network.config.lookup_from_codebook:
            images_BCHW: Tensor = network.decode(codes_BHW, force_not_quantize=True, shape=shape).sample
        else:
            vectors_BZHW = network.quantize.get_codebook_entry(codes_BHW, shape)
            images_BCHW = network.decode(vectors_BZHW, force_not_quantize=True).sample
        return images_BCHW


def empty(table: dict[str, Any]) -> VQModel:
    """The model that a ``config.json`` describes, without weights, on the meta device."""
    try:
        with torch.device("meta"):
            return VQModel.from_config(table)
    except (ValueError, TypeError, RuntimeError) as error:
        raise WeightsError(f"diffusers makes no VQModel of this config: {error}. Correct it.") from error


_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_ATTENTION = re.compile(r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)\.")


def new_name(name: str) -> str:
    """The library's name of a tensor in place of the one that it wrote until version 0.16, and still reads."""
    return _ATTENTION.sub(lambda found: f"{found[1]}.{_OLD[found[2]]}.", name)
