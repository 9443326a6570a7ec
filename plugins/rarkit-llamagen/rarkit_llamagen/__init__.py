"""LlamaGen's released VQ tokenizers as a rarkit tokenizer.

Shape letters: B batch, C channels, H, W height and width of image or grid, Z width of a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from pydantic import Field, model_validator

from rarkit import ImageInfo, Location, NotInFingerprint, Tokenizer, TokenizerModel, hookimpl
from rarkit.tokenizers import ImageDecoder, LearnedState, checksum, length, load_network, network_state, numbered, whole_grid

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit_llamagen._network import VQNetwork

requires_rarkit = ">=0.1,<0.2"

RELEASED = {16: ("vq_ds16_c2i.pt", (1, 1, 2, 2, 4)), 8: ("vq_ds8_c2i.pt", (1, 2, 2, 4))}
"""The released files, with their ``channel_mult``, by pixels of a token's side."""
Multiple = Annotated[int, Field(gt=0, le=64)]


@final
class LlamaGenVQ(Tokenizer):
    """The convolutional VQ tokenizers of LlamaGen (Sun et al. 2024): 16 × 16 or 8 × 8 pixels per token, 16,384 codes.

    One file serves images of any size whose sides are multiples of that; it was trained on 256 × 256 pixels, and published for 384
    and 512 too. A code is the nearest after latents and codebook rows are brought to length one. The settings from ``channel_mult``
    on describe the network; their defaults are those of the released files.
    """

    name: Literal["llamagen_vq"] = "llamagen_vq"
    weights: Annotated[Location | None, NotInFingerprint()]
    """The released ``vq_ds16_c2i.pt`` or ``vq_ds8_c2i.pt``, or a safetensors file; null means random weights, for rehearsals."""
    downsample: Annotated[int, Field(gt=0, le=2**13)] = 16
    """Pixels of a token's side: 16 (``vq_ds16_c2i.pt``) or 8 (``vq_ds8_c2i.pt``); another power of two with ``channel_mult``."""
    channel_mult: Annotated[tuple[Multiple, ...], Field(min_length=1, max_length=14)] | None = None
    """Multiples of ``hidden_channels`` at each resolution; each resolution after the first halves height and width. Null means
    those of the released file: 1, 1, 2, 2, 4 or 1, 2, 2, 4."""
    hidden_channels: Annotated[int, Field(gt=0, le=2**13, multiple_of=32)] = 128
    """Channels at full resolution."""
    num_res_blocks: Annotated[int, Field(gt=0, le=64)] = 2
    """Residual blocks per resolution of the encoder; the decoder has one more."""
    z_channels: Annotated[int, Field(gt=0, le=2**13)] = 256
    """Channels between the convolutions and the codes."""
    codes: Annotated[int, Field(ge=2, le=2**20)] = 16384
    """The codebook size."""
    code_channels: Annotated[int, Field(gt=0, le=2**13)] = 8
    """The dimension of a code's vector."""
    batch_size: Annotated[int, Field(gt=0, le=2**20), NotInFingerprint()] = 16
    """Images processed at a time; bounds memory."""

    @model_validator(mode="after")
    def _downsample_fits(self) -> Self:
        if self.channel_mult is None and self.downsample not in RELEASED:
            raise ValueError(
                f"downsample is 16 or 8 in the released files, not {self.downsample}; with another, set channel_mult too"
            )
        if self.channel_mult is not None and 2 ** (len(self.channel_mult) - 1) != self.downsample:
            raise ValueError(
                f"{len(self.channel_mult)} resolutions in channel_mult make tokens of {2 ** (len(self.channel_mult) - 1)} pixels a "
                f"side, but downsample is {self.downsample}; set them to agree"
            )
        return self

    def content(self) -> str | None:
        return None if self.weights is None else checksum(self.weights)

    def rehearsed(self) -> Self:
        # A quarter of the width and half of the blocks: the released network takes seconds per image on a laptop.
        return self.model_copy(update={"weights": None, "hidden_channels": 32, "num_res_blocks": 1})

    def codebook_size(self) -> int:
        return self.codes

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        return whole_grid(self.name, info, self.downsample)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        from rarkit_llamagen._model import LlamaGenModel

        return LlamaGenModel(self.network(state), device, self.batch_size)

    def without_files(self, state: LearnedState) -> tuple[Self, LearnedState]:
        return self.model_copy(update={"weights": None}), network_state(self.network(state))

    def image_decoder(self, state: LearnedState) -> ImageDecoder:
        tensors = self.network(state).state_dict()
        read = {name: tensor for name, tensor in tensors.items() if not name.startswith(("encoder.", "quant_conv."))}
        return ImageDecoder("rarkit_llamagen._image_decoder", {"sizes": self.sizes()}, read)

    def network(self, state: LearnedState | None = None) -> VQNetwork:
        """The network with its weights, on the CPU.

        Args:
            state: the weights by name; those of the file if there are none.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the network.
        """
        import torch

        from rarkit_llamagen._network import VQNetwork

        with torch.device("meta"):
            network = VQNetwork(*self.sizes())
        cure = "Set downsample to 16 for vq_ds16_c2i.pt and to 8 for vq_ds8_c2i.pt, or the sizes of the network in [tokenizer]."
        # A buffer that only training uses.
        return load_network(network, self.weights, state, cure=cure, sizes=_sizes, unused=("quantize.codebook_used",))

    def sizes(self) -> tuple[int, tuple[int, ...], int, int, int, int]:
        """The arguments of the network."""
        multiples = self.channel_mult or RELEASED[self.downsample][1]
        return self.hidden_channels, multiples, self.num_res_blocks, self.z_channels, self.codes, self.code_channels


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""
    return {
        "codes": length(tensors, "quantize.embedding.weight", 0),
        "channels per code (code_channels)": length(tensors, "quantize.embedding.weight", 1),
        "channels (hidden_channels)": length(tensors, "encoder.conv_in.weight", 0),
        "latent channels (z_channels)": length(tensors, "encoder.conv_out.weight", 0),
        "resolutions (channel_mult)": numbered(tensors, "encoder.conv_blocks."),
        "residual blocks (num_res_blocks)": numbered(tensors, "encoder.conv_blocks.0.res."),
    }


@hookimpl
def rarkit_tokenizers() -> list[type[Tokenizer]]:
    """Adds LlamaGen's tokenizers to rarkit."""
    return [LlamaGenVQ]
