"""MaskGIT-VQGAN, the tokenizer of the released RAR models.

Shape letters: B batch, H, W, C image height, width, channels, Z latent channels, V codebook size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

from pydantic import Field

from rarkit.files.tensor_mismatches import length, numbered
from rarkit.files.weights import checksum
from rarkit.images import ImageInfo
from rarkit.registry.bounds import Batch, Codes
from rarkit.registry.component import Location, NotInFingerprint
from rarkit.tokenizers.base import ImageDecoder, LearnedState, Tokenizer, TokenizerModel
from rarkit.tokenizers.network_model import NetworkModel, nearest_codes, whole_grid
from rarkit.tokenizers.network_weights import load_network, network_state

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.tokenizers._maskgit_network import MaskGITNetwork

RELEASED = "maskgit-vqgan-imagenet-f16-256.bin"
CURE = f"Is it {RELEASED}? If not, set the sizes of the network in [tokenizer]."


@final
class MaskGITVQGAN(Tokenizer):
    """The convolutional VQGAN of MaskGIT (Chang et al. 2022) in its PyTorch release: 16 × 16 pixels per token, 1,024 codes.

    The other settings describe the network; their defaults are those of the released file.
    """

    name: Literal["maskgit_vqgan"] = "maskgit_vqgan"
    weights: Annotated[Location | None, NotInFingerprint()]
    """The released ``maskgit-vqgan-imagenet-f16-256.bin`` or a safetensors file; null means random weights, for rehearsals."""
    hidden_channels: Annotated[int, Field(gt=0, le=2**13, multiple_of=32)] = 128
    """Channels at full resolution."""
    channel_mult: Annotated[tuple[Annotated[int, Field(gt=0, le=64)], ...], Field(min_length=1, max_length=14)] = (1, 1, 2, 2, 4)
    """Multiples of ``hidden_channels`` at each resolution; each resolution after the first halves height and width."""
    num_res_blocks: Annotated[int, Field(gt=0, le=64)] = 2
    """Residual blocks per resolution."""
    z_channels: Annotated[int, Field(gt=0, le=2**13)] = 256
    """Z, the dimension of a code's vector."""
    codes: Codes = 1024
    """V, the codebook size."""
    rounding: Literal["nearest", "down"] = "nearest"
    """How decoded pixels become whole numbers from 0 to 255. The published sampler of RAR cuts off what is behind the point:
    ``"down"``. That is darker by half a level on average."""
    batch_size: Annotated[Batch, NotInFingerprint()] = 16
    """Images processed at a time; bounds memory."""

    def content(self) -> str | None:
        return None if self.weights is None else checksum(self.weights)

    def rehearsed(self) -> Self:
        # A quarter of the width and half of the blocks: the released network takes seconds per image on a laptop.
        return self.model_copy(update={"weights": None, "hidden_channels": 32, "num_res_blocks": 1})

    def codebook_size(self) -> int:
        return self.codes

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        return whole_grid(self.name, info, 2 ** (len(self.channel_mult) - 1))

    def image_decoder(self, state: LearnedState) -> ImageDecoder:
        names = ("hidden_channels", "channel_mult", "num_res_blocks", "z_channels", "codes", "rounding")
        weights = self.network(state).state_dict()
        return ImageDecoder(
            "rarkit.tokenizers._maskgit_decoder",
            {name: getattr(self, name) for name in names},
            {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.")},
        )

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        return MaskGITModel(self.network(state), device, self.batch_size, rounds=self.rounding == "nearest")

    def without_files(self, state: LearnedState) -> tuple[Self, LearnedState]:
        return self.model_copy(update={"weights": None}), network_state(self.network(state))

    def network(self, state: LearnedState | None = None) -> MaskGITNetwork:
        """The network with its weights, on the CPU.

        Args:
            state: the weights by name; those of the file if there are none.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the network.
        """
        import torch

        from rarkit.tokenizers._maskgit_network import MaskGITNetwork

        with torch.device("meta"):
            sizes = (self.hidden_channels, self.channel_mult, self.num_res_blocks, self.z_channels, self.codes)
            network = MaskGITNetwork(3, *sizes)
        return load_network(network, self.weights, state, cure=CURE, sizes=_sizes)


@final
class MaskGITModel(NetworkModel):
    """The network on a device."""

    title: ClassVar[str] = "maskgit_vqgan"
    network: MaskGITNetwork

    def latents(self, images_BCHW: Tensor) -> Tensor:
        latents_BZHW: Tensor = self.network.encoder(images_BCHW)
        return latents_BZHW

    def codes(self, latents_BZHW: Tensor) -> Tensor:
        return nearest_codes(latents_BZHW, self.network.quantize.embedding.weight)

    def images(self, codes_BHW: Tensor) -> Tensor:
        images_BCHW: Tensor = self.network.decoder(self.network.quantize.embedding(codes_BHW).permute(0, 3, 1, 2))
        return images_BCHW


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""
    return {
        "codes": length(tensors, "quantize.embedding.weight", 0),
        "channels per code (z_channels)": length(tensors, "quantize.embedding.weight", 1),
        "channels (hidden_channels)": length(tensors, "encoder.conv_in.weight", 0),
        "resolutions (channel_mult)": numbered(tensors, "encoder.down."),
        "residual blocks (num_res_blocks)": numbered(tensors, "encoder.down.0.block."),
    }
