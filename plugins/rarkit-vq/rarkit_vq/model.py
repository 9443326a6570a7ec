"""The trained tokenizer on a device.

Shape letters: B batch, H, W, C height, width, channels of an image, of a grid without C.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from rarkit import TokenizerModel
from rarkit.errors import GridError, WeightsError
from rarkit.tokenizers import ImageDecoder, LearnedState
from rarkit_vq._levels import as_levels, as_numbers
from rarkit_vq.network import Network, make_network
from rarkit_vq.tokenizer import VQTokenizer

PIXELS_AT_ONCE = 2**20
"""Of all images of a pass: bounds memory."""
OUT = "decoder.out.bias"
"""A weight whose length is the number of channels."""
CURE = "They were learned with other settings: run the fit stage again."


@final
class VQModel(TokenizerModel):
    """The network, without gradients, on some images at a time."""

    def __init__(self, network: Network, device: str, downsample: int) -> None:
        self.network, self.device, self.downsample = network.to(device), device, downsample
        self.channels = len(network.state_dict()[OUT])

    def encode(self, images_BHWC: Tensor) -> Tensor:
        height, width, channels = images_BHWC.shape[1:]
        if channels != self.channels:
            raise GridError(
                f"tokenizer 'vq' was trained on images with {self.channels} channels, but these have {channels}. Use images like "
                "those it was trained on, or train another."
            )
        with torch.inference_mode():
            return torch.cat([self.network.codes(as_numbers(part)) for part in self._parts(images_BHWC, height * width)])

    def decode(self, codes_BHW: Tensor) -> Tensor:
        pixels = codes_BHW.shape[1] * codes_BHW.shape[2] * self.downsample**2
        with torch.inference_mode():
            return torch.cat([as_levels(self.network.images(part)) for part in self._parts(codes_BHW, pixels)])

    def _parts(self, rows: Tensor, pixels: int) -> Iterator[Tensor]:
        return (part.to(self.device) for part in torch.split(rows, max(1, PIXELS_AT_ONCE // pixels)))


def restored(part: VQTokenizer, state: LearnedState) -> Network:
    """The network with its weights, on the CPU.

    Raises:
        WeightsError: the weights are not those of such a network, or not finite.
    """
    if OUT not in state:
        raise WeightsError(f"tokenizer 'vq' needs its weights, but the learned state has {sorted(state)[:3]}. Run the fit stage.")
    with torch.random.fork_rng(devices=[]):
        network = make_network(part.start, part.quantizer, part.downsample, part.width, part.blocks, len(state[OUT]))
    expected = network.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        if name not in state or name not in expected:
            fault = "are missing" if name not in state else "belong to none of its layers"
            raise WeightsError(f"the weights {name!r} of tokenizer 'vq' {fault}. {CURE}")
        # A number without axes is kept as an array of one.
        array, shape = np.atleast_1d(state[name]), tuple(expected[name].shape) or (1,)
        if array.shape != shape:
            raise WeightsError(f"the weights {name!r} of tokenizer 'vq' have the shape {array.shape}, not {shape}. {CURE}")
        if not np.isfinite(array).all():
            raise WeightsError(f"the weights {name!r} of tokenizer 'vq' are not finite numbers: they are damaged. Run fit again.")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    network.load_state_dict({name: tensor.reshape(expected[name].shape) for name, tensor in tensors.items()})
    return network.eval().requires_grad_(False)


def exported(part: VQTokenizer, state: LearnedState) -> ImageDecoder:
    """The decoder where rarkit is not installed."""
    network = restored(part, state)
    settings = {name: getattr(part, name) for name in ("start", "downsample", "width", "blocks")} | {"channels": len(state[OUT])}
    tensors = {"table": network.quantizer.table().detach().clone(), **network.decoder.state_dict()}
    return ImageDecoder("rarkit_vq._decoder", settings, tensors)
