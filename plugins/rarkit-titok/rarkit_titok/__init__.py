"""TiTok, the released one-dimensional tokenizers, as a rarkit tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from pydantic import Field

from rarkit import ImageInfo, Location, NotInFingerprint, Tokenizer, TokenizerModel, hookimpl
from rarkit.errors import GridError
from rarkit.tokenizers import LearnedState, checksum, length, load_network, network_state, numbered
from rarkit_titok.sizes import PRESETS, Preset, TiTokSizes, TransformerSizes

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit_titok._network import TiTokNetwork

requires_rarkit = ">=0.1,<0.2"


@final
class TiTok(Tokenizer):
    """TiTok (Yu et al. 2024): an image as 32 to 256 tokens without a place, which form a grid of one row.

    A transformer reads the patches of the image into latent tokens, and another one writes patches from them. Images are of
    256 × 256 pixels. Scan orders that need several rows (``z_curve``, ``subsample``) refuse such a grid; in a single row, most
    others go from left to right.
    """

    name: Literal["titok"] = "titok"
    weights: Annotated[Location | None, NotInFingerprint()]
    """The released ``tokenizer_titok_<preset>.bin``, or a safetensors file; null means random weights, for rehearsals."""
    preset: Preset = "l32"
    """The network: small, base or large encoder and decoder, and the number of tokens. Those with ``vq8k`` have 8,192 codes and
    decode to pixels; the others have 4,096 and decode through MaskGIT-VQGAN."""
    sizes: TiTokSizes | None = None
    """The sizes of another network; null means those of the preset."""
    rounding: Literal["nearest", "down"] = "nearest"
    """How decoded pixels become whole numbers from 0 to 255. The published code cuts off what is behind the point: ``"down"``. That
    is darker by half a level on average."""
    batch_size: Annotated[int, Field(gt=0, le=2**20), NotInFingerprint()] = 16
    """Images processed at a time; bounds memory."""

    def content(self) -> str | None:
        return None if self.weights is None else checksum(self.weights)

    def rehearsed(self) -> Self:
        # The released networks take up to seconds per image on a laptop.
        sizes = self.network_sizes()
        small = TransformerSizes(width=64, layers=2, heads=2)
        pixels = sizes.pixels and sizes.pixels.model_copy(update={"hidden_channels": 32, "num_res_blocks": 1})
        sizes = sizes.model_copy(update={"encoder": small, "decoder": small, "pixels": pixels})
        return self.model_copy(update={"weights": None, "sizes": sizes})

    def network_sizes(self) -> TiTokSizes:
        """The sizes of the network."""
        return self.sizes or PRESETS[self.preset]

    def codebook_size(self) -> int:
        return self.network_sizes().codes

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        side = self.network_sizes().image_size
        if (info.height, info.width, info.channels) != (side, side, 3):
            raise GridError(
                f"tokenizer 'titok' takes colour images of {side}×{side}, but these are {info.height}×{info.width} with "
                f"{info.channels} channels. Choose another size in [dataset], or another [tokenizer]."
            )
        return 1, self.network_sizes().tokens

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        from rarkit_titok._model import TiTokModel

        return TiTokModel(self.network(state), device, self.batch_size, rounds=self.rounding == "nearest")

    def without_files(self, state: LearnedState) -> tuple[Self, LearnedState]:
        return self.model_copy(update={"weights": None}), network_state(self.network(state))

    def network(self, state: LearnedState | None = None) -> TiTokNetwork:
        """The network with its weights, on the CPU.

        Args:
            state: the weights by name; those of the file if there are none.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the network.
        """
        import torch

        from rarkit_titok._network import TiTokNetwork

        with torch.device("meta"):
            network = TiTokNetwork(self.network_sizes())
        cure = "Set preset to the file's ('b64' for tokenizer_titok_b64.bin), or the sizes of the network in [tokenizer.sizes]."
        return load_network(network, self.weights, state, cure=cure, sizes=_sizes)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""
    return {
        "tokens": length(tensors, "latent_tokens", 0),
        "codes": length(tensors, "quantize.embedding.weight", 0),
        "channels per code": length(tensors, "quantize.embedding.weight", 1),
        "numbers of width in the encoder": length(tensors, "encoder.class_embedding", 1),
        "numbers of width in the decoder": length(tensors, "decoder.class_embedding", 1),
        "layers of the encoder": numbered(tensors, "encoder.transformer."),
        "layers of the decoder": numbered(tensors, "decoder.transformer."),
    }


@hookimpl
def rarkit_tokenizers() -> list[type[Tokenizer]]:
    """Adds TiTok to rarkit."""
    return [TiTok]
