"""Tokenizers whose images and codes pass through a network: batches, bytes, and the nearest code.

Shape letters: B batch, C channels of an image, H, W height and width of image or grid, Z channels of a latent, V codebook size,
X latents of all images.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from rarkit.errors import GridError, WeightsError
from rarkit.images import ImageInfo
from rarkit.tokenizers.base import TokenizerModel

if TYPE_CHECKING:
    from torch import Tensor, nn

SCORES_AT_ONCE = 2**24


class NetworkModel(TokenizerModel, ABC):
    """A network on a device, in channels-last layout, which is faster for convolutions, and bounded batches.

    A subclass says how a batch of images becomes latents, latents codes, and codes images, in float32.
    """

    title: ClassVar[str]
    """The name of the part, for messages."""
    signed: ClassVar[bool] = False
    """Whether the network's images are from −1 (black) to 1 (white); otherwise from 0 to 1."""

    def __init__(self, network: nn.Module, device: str, batch_size: int, *, rounds: bool = True) -> None:
        """
        Args:
            network: in evaluation mode, with its weights.
            device: a torch device string, to which the network is moved.
            batch_size: images processed at a time; bounds memory.
            rounds: decoded levels to the nearest whole number; otherwise down.
        """
        import torch

        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device, self.batch_size, self.rounds = device, batch_size, rounds

    @abstractmethod
    def latents(self, images_BCHW: Tensor) -> Tensor:
        """Latents (B, Z, grid height, grid width) of images (B, C, H, W) in the network's range, before a code is chosen."""

    @abstractmethod
    def codes(self, latents_BZHW: Tensor) -> Tensor:
        """Codes (B, grid height, grid width) int64 of latents; see ``nearest_codes``."""

    @abstractmethod
    def images(self, codes_BHW: Tensor) -> Tensor:
        """Images (B, C, H, W) in the network's range, not clamped to it, of codes (B, grid height, grid width)."""

    def encode(self, images_BHWC: Tensor) -> Tensor:
        import torch

        with torch.inference_mode():
            return torch.cat([self._encoded(part_BHWC) for part_BHWC in self._parts(images_BHWC)])

    def decode(self, codes_BHW: Tensor) -> Tensor:
        import torch

        with torch.inference_mode():
            return torch.cat([self._decoded(part_BHW) for part_BHW in self._parts(codes_BHW)])

    def _encoded(self, images_BHWC: Tensor) -> Tensor:
        # A (B, H, W, C) array viewed as (B, C, H, W) is already channels-last: nothing is copied.
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float().div_(255.0)
        latents_BZHW = self.latents(images_BCHW.mul_(2.0).sub_(1.0) if self.signed else images_BCHW)
        return self.codes(self._finite(latents_BZHW, "encodes images"))

    def _decoded(self, codes_BHW: Tensor) -> Tensor:
        images_BCHW = self._finite(self.images(codes_BHW), "decodes codes")
        if self.signed:
            images_BCHW = images_BCHW.add(1.0).mul_(0.5)
        levels_BCHW = images_BCHW.clamp(0.0, 1.0).mul_(255.0)
        # Casting cuts off what is behind the point.
        return (levels_BCHW.round_() if self.rounds else levels_BCHW).byte().permute(0, 2, 3, 1).contiguous()

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        import torch

        return (part.to(self.device) for part in torch.split(rows, self.batch_size))

    def _finite(self, values: Tensor, does: str) -> Tensor:
        # As codes or bytes, they would look like any other.
        if not values.isfinite().all():
            raise WeightsError(
                f"tokenizer {self.title!r} {does} to numbers that are not finite (NaN or infinity): its weights are damaged. Fetch "
                "them again."
            )
        return values


def whole_grid(title: str, info: ImageInfo, side: int, channels: int = 3) -> tuple[int, int]:
    """The grid of a network that makes a token of ``side`` × ``side`` pixels; ``title`` is the part's name.

    Raises:
        GridError: the images do not divide into whole tokens, or have other channels.
    """
    if info.channels != channels or info.height % side or info.width % side:
        colours = "colour" if channels == 3 else "greyscale"
        raise GridError(
            f"tokenizer {title!r} takes {colours} images whose sides are multiples of {side}, but these are {info.height}×"
            f"{info.width} with {info.channels} channels. Choose another size in [dataset], or another [tokenizer]."
        )
    return info.height // side, info.width // side


def nearest_codes(latents_BZHW: Tensor, codebook_VZ: Tensor) -> Tensor:
    """The row of the codebook that is nearest to each latent in Euclidean distance, (B, H, W) int64; of equals the first.

    Memory is bounded: one score for each latent and code, of as many latents at a time as give 2^24 scores.
    """
    import torch

    norms_V = codebook_VZ.square().sum(1)
    latents_XZ = latents_BZHW.permute(0, 2, 3, 1).reshape(-1, codebook_VZ.shape[1])
    rows = max(1, SCORES_AT_ONCE // len(norms_V))
    # |x|² is the same for all codes and is left out.
    codes = [torch.addmm(norms_V, part_XZ, codebook_VZ.T, alpha=-2).argmin(1) for part_XZ in torch.split(latents_XZ, rows)]
    return torch.cat(codes).reshape(latents_BZHW.shape[0], *latents_BZHW.shape[2:])
