"""The network of the tokenizer: encoder, quantizer and decoder.

Shape letters: B batch, C channels, H and W height and width of image or grid, Z numbers of a token's vector, M vectors, V codebook
size.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, final

from torch import Tensor, nn

from rarkit_vq._convolutions import ConvolutionalDecoder, ConvolutionalEncoder
from rarkit_vq._patch_networks import PatchDecoder, PatchEncoder
from rarkit_vq.quantizer_settings import VQ, Quantizer
from rarkit_vq.quantizers import PatchCodes, QuantizerModule, dimensions, make_quantizer


@final
class Pass(NamedTuple):
    """What the network makes of images in training."""

    images_BCHW: Tensor
    """The reconstructions, float32."""
    loss: Tensor
    """The quantizer's."""
    codes_BHW: Tensor
    vectors_BZHW: Tensor
    """The encoder's, float32."""


@final
class Network(nn.Module):
    """Images to codes and back. Call it in training; ``codes`` and ``images`` are for the tokenizer."""

    def __init__(self, encoder: nn.Module, quantizer: QuantizerModule, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder

    def forward(self, images_BCHW: Tensor) -> Pass:
        """Images in [−1, 1) through all of it."""
        vectors_BZHW: Tensor = self.encoder(images_BCHW).float()
        quantized_BZHW, codes_BHW, loss = self.quantizer(vectors_BZHW)
        return Pass(self.decoder(quantized_BZHW).float(), loss, codes_BHW, vectors_BZHW)

    def codes(self, images_BCHW: Tensor) -> Tensor:
        """The codes (B, H, W) int64 of images in [−1, 1)."""
        vectors_BZHW: Tensor = self.encoder(images_BCHW)
        batch, _, height, width = vectors_BZHW.shape
        return self.quantizer.codes(vectors_BZHW.movedim(1, -1).flatten(0, -2)).reshape(batch, height, width)

    def images(self, codes_BHW: Tensor) -> Tensor:
        """The images (B, C, H, W) of codes, not clamped."""
        images_BCHW: Tensor = self.decoder(self.quantizer.table()[codes_BHW].movedim(-1, 1))
        return images_BCHW


def make_network(
    start: Literal["kmeans", "random"],
    settings: Quantizer,
    downsample: int,
    width: int,
    blocks: int,
    channels: int,
    tokens: int = 1,
) -> Network:
    """A new network; its weights are drawn from torch's generator.

    Args:
        start: what it starts as.
        settings: the quantizer's.
        downsample: pixels of a token's side.
        width: channels at the resolution of the pixels.
        blocks: residual blocks at each resolution.
        channels: of the images.
        tokens: of a step of training, all images together.
    """
    if start == "kmeans":
        assert isinstance(settings, VQ)
        sizes = downsample, width, blocks, channels
        return Network(PatchEncoder(*sizes), PatchCodes(settings, downsample**2 * channels), PatchDecoder(*sizes))
    shape = downsample, width, blocks, channels, dimensions(settings)
    return Network(ConvolutionalEncoder(*shape), make_quantizer(settings, tokens), ConvolutionalDecoder(*shape))
