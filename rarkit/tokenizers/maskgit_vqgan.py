"""MaskGIT-VQGAN, the tokenizer of the released RAR models.

Shape letters: B batch, H, W, C image height, width, channels, Z latent channels, V codebook size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from pydantic import Field

from rarkit.errors import GridError, WeightsError
from rarkit.files.tensor_mismatches import check_tensors, numbered
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import checksum, read_tensors
from rarkit.images import ImageInfo
from rarkit.registry.bounds import Batch, Codes
from rarkit.registry.component import Location, NotInFingerprint
from rarkit.tokenizers.base import ImageDecoder, LearnedState, Tokenizer, TokenizerModel

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
        factor = 2 ** (len(self.channel_mult) - 1)
        if info.channels != 3 or info.height % factor or info.width % factor:
            raise GridError(
                f"tokenizer 'maskgit_vqgan' takes colour images whose sides are multiples of {factor}, but these are "
                f"{info.height}×{info.width} with {info.channels} channels. Choose another size in [dataset], "
                "or another [tokenizer]."
            )
        return info.height // factor, info.width // factor

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
        arrays = {name: tensor.numpy() for name, tensor in self.network(state).state_dict().items()}
        return self.model_copy(update={"weights": None}), arrays

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
        if state:
            arrays = {name: torch.from_numpy(array) for name, array in state.items()}
            check_tensors("the bundle", "tokenizer", network.state_dict(), arrays, lambda _: CURE, _sizes)
            network.load_state_dict({name: tensor.float() for name, tensor in arrays.items()}, assign=True)
        elif self.weights is None:
            network.to_empty(device="cpu").initialise(0)
        else:
            tensors, _ = read_tensors(local_copy(self.weights))
            check_tensors(self.weights, "tokenizer", network.state_dict(), tensors, lambda _: CURE, _sizes)
            network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
        return network.eval().requires_grad_(False)


@final
class MaskGITModel(TokenizerModel):
    """The network on a device, in channels-last layout and bounded batches."""

    def __init__(self, network: MaskGITNetwork, device: str, batch_size: int, *, rounds: bool = True) -> None:
        """``rounds``: to the nearest level; otherwise down."""
        import torch

        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.batch_size, self.rounds = device, batch_size, rounds

    def encode(self, images_BHWC: Tensor) -> Tensor:
        import torch

        with torch.inference_mode():
            return torch.cat([self.network.quantize.nearest(self.latents(part)) for part in self._parts(images_BHWC)])

    def decode(self, codes_BHW: Tensor) -> Tensor:
        import torch

        with torch.inference_mode():
            return torch.cat([_as_bytes(self.images(part), rounds=self.rounds) for part in self._parts(codes_BHW)])

    def latents(self, images_BHWC: Tensor) -> Tensor:
        """Latents (B, Z, grid height, grid width) of uint8 images (B, H, W, C)."""
        # A (B, H, W, C) array viewed as (B, C, H, W) is already channels-last: nothing is copied.
        latents_BZHW: Tensor = self.network.encoder(images_BHWC.permute(0, 3, 1, 2).float().div_(255.0))
        return _finite(latents_BZHW, "encodes images")

    def images(self, codes_BHW: Tensor) -> Tensor:
        """Images (B, C, H, W) float32, not clamped, of codes (B, grid height, grid width)."""
        images_BCHW: Tensor = self.network.decoder(self.network.quantize.embedding(codes_BHW).permute(0, 3, 1, 2))
        return _finite(images_BCHW, "decodes codes")

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        return (rows[start : start + self.batch_size].to(self.device) for start in range(0, len(rows), self.batch_size))


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""

    def size(name: str, axis: int) -> int:
        return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else 0

    sizes = {
        "codes": size("quantize.embedding.weight", 0),
        "channels per code (z_channels)": size("quantize.embedding.weight", 1),
        "channels (hidden_channels)": size("encoder.conv_in.weight", 0),
        "resolutions (channel_mult)": numbered(tensors, "encoder.down."),
        "residual blocks (num_res_blocks)": numbered(tensors, "encoder.down.0.block."),
    }
    return {word: number for word, number in sizes.items() if number}


def _finite(values: Tensor, does: str) -> Tensor:
    # As codes or bytes, they would look like any other.
    if not values.isfinite().all():
        raise WeightsError(
            f"tokenizer 'maskgit_vqgan' {does} to numbers that are not finite (NaN or infinity): its weights are damaged. Fetch "
            "them again."
        )
    return values


def _as_bytes(images_BCHW: Tensor, *, rounds: bool) -> Tensor:
    levels_BCHW = images_BCHW.clamp(0.0, 1.0).mul_(255.0)
    # Casting cuts off what is behind the point.
    return (levels_BCHW.round_() if rounds else levels_BCHW).byte().permute(0, 2, 3, 1).contiguous()
