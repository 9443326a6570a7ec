"""Tokenizers: from images to grids of codes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import GridError, UserError
from rarkit.images import ImageBlock, ImageInfo, ImageReader
from rarkit.registry.component import Component
from rarkit.registry.contract import broken, check_fit, checked
from rarkit.registry.inputs import check_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.engine.learning import Learning

MANY_CODES = 16
"""From this number of codes on, they cannot all be black."""
LearnedState = Mapping[str, NDArray[np.generic]]
"""The arrays that ``fit`` learned, by name. They are kept, a number without axes as an array of one, and passed to ``build``."""


class TokenizerModel(ABC):
    """A tokenizer on one device. Accepts any batch size; the caller bounds it.

    What a model is given is checked for its shape, its dtype and the range of its codes, and so is what it returns; both only if a
    part built it.
    """

    _part: Tokenizer | None = None
    """The part that built it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, encode=_checked_encode, decode=_checked_decode)

    @abstractmethod
    def encode(self, images_BHWC: Tensor) -> Tensor:
        """From uint8 images (B, H, W, C) to codes (B, grid height, grid width), int64 in [0, codebook_size).

        Raises:
            UserError: the images are not uint8, or not of such a shape.
            GridError: the tokenizer does not support their size or channels.
        """

    @abstractmethod
    def decode(self, codes_BHW: Tensor) -> Tensor:
        """From codes (B, grid height, grid width), int64 in [0, codebook_size), to uint8 images (B, H, W, C).

        Raises:
            UserError: the codes are not int64, not grids, or outside the codebook.
        """


@final
@dataclass(frozen=True)
class ImageDecoder:
    """From codes to images where rarkit is not installed: what an export has of a tokenizer."""

    module: str
    """The dotted name of the module with its code, which is copied into the export. It imports torch, safetensors, the standard
    library and modules of its own package of which that holds too; its class ``ImageDecoder(settings, weights)`` has a method
    ``decode``, as a ``TokenizerModel`` has."""
    settings: Mapping[str, Any]
    """JSON data for its ``settings``."""
    tensors: Mapping[str, Tensor]
    """Those of the safetensors file whose path is its ``weights``."""


class Tokenizer(Component):
    """Turns images into grids of codes, and back. Only ``build`` imports torch.

    The base class checks what subclasses and their models return.
    """

    kind: ClassVar[str] = "tokenizers"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    learns: ClassVar[bool] = False
    """Whether ``fit`` must be called before ``build``; if so, the pipeline has a ``fit`` stage."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, codebook_size=_checked_size, grid=_checked_grid, fit=check_fit, learn=check_fit, build=_checked_build)

    @abstractmethod
    def codebook_size(self) -> int:
        """V, the number of codes; codes are in [0, V)."""

    @abstractmethod
    def grid(self, info: ImageInfo) -> tuple[int, int]:
        """Height and width of the grid of codes of these images.

        Raises:
            GridError: the images do not divide into whole tokens, or have the wrong number of channels.
        """

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns from training images, on the CPU and without a word. Called only if ``learns`` is true.

        A part has this method or ``learn``.
        """
        if type(self).learn is Tokenizer.learn:
            raise TypeError(f"tokenizer {self.name!r} has nothing to learn: learns is False")
        from rarkit.engine.learning import Learning

        return self.learn(reader, seed, Learning())

    def learn(self, reader: ImageReader, seed: int, learning: Learning) -> LearnedState:
        """Learns as ``fit`` does, with the engine: for what is trained by gradient descent.

        Args:
            reader: training images.
            seed: decides all that is drawn.
            learning: trains a ``Task``, on the stage's device and processes, with progress, log and checkpoints.
        """
        return self.fit(reader, seed)

    @property
    @final
    def learns_on_all(self) -> bool:
        """Whether all processes of a run learn together, with the engine; otherwise the first does alone."""
        return type(self).learn is not Tokenizer.learn

    @abstractmethod
    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        """Creates the tokenizer on a device.

        Args:
            state: what ``fit`` returned, or ``without_files``; empty if ``learns`` is false.
            device: a torch device string.
        """

    def image_decoder(self, state: LearnedState) -> ImageDecoder | None:
        """The decoder for an export; None if rarkit has no code for that.

        Args:
            state: as for ``build``.
        """
        return None

    def without_files(self, state: LearnedState) -> tuple[Tokenizer, LearnedState]:
        """The same tokenizer for a file of its own or a bundle: a part that reads no file, and all arrays that it is built from.

        Tokenizers that read files override this, and build from those arrays if they are given.

        Args:
            state: what ``fit`` returned; empty if ``learns`` is false.
        """
        return self, state

    @final
    def check_decoding(self, model: TokenizerModel, grid: tuple[int, int], info: ImageInfo) -> None:
        """Decodes two grids of codes, from the first code to the last, so that a decoder that is wrong is found before training.

        Raises:
            PluginError: the images are not what they must be.
        """
        import torch

        codes = self.codebook_size()
        codes_BHW = torch.linspace(0, codes - 1, 2 * grid[0] * grid[1], dtype=torch.float64).round().long().reshape(2, *grid)
        decoded_BHWC = model.decode(codes_BHW)
        shape = 2, info.height, info.width, info.channels
        if decoded_BHWC.shape != shape:
            raise broken(self, f"decodes to images {tuple(decoded_BHWC.shape)}; those of the dataset would be {shape}")
        if codes >= MANY_CODES and decoded_BHWC.max() <= 1:
            raise broken(self, "decodes whatever code to black; levels must be from 0 to 255, not from 0 to 1")

    @final
    def check_round_trip(self, model: TokenizerModel, block: ImageBlock) -> None:
        """Encodes and decodes images, so that a decoder that is wrong is found before training.

        Raises:
            PluginError: codes or images are not what they must be.
        """
        import torch

        decoded_BHWC = model.decode(model.encode(torch.from_numpy(block.images_NHWC)))
        if decoded_BHWC.shape != block.images_NHWC.shape:
            raise broken(
                self,
                f"decodes to images {tuple(decoded_BHWC.shape)}; the images that were encoded are {block.images_NHWC.shape}",
            )


def table_of_patches(tokenizer: Tokenizer, state: LearnedState, patch: int) -> ImageDecoder:
    """The decoder of a tokenizer whose codes are patches of pixels."""
    import torch

    # The image of each code, alone in a grid.
    codes_V11 = torch.arange(tokenizer.codebook_size()).reshape(-1, 1, 1)
    pixels_VD = tokenizer.build(state, "cpu").decode(codes_V11).flatten(1)
    return ImageDecoder("rarkit.tokenizers._patch_decoder", {"patch": patch}, {"pixels": pixels_VD})


def _checked_size(part: Tokenizer, codebook_size: Callable[[], Any]) -> int:
    size = codebook_size()
    if not isinstance(size, int) or size < 1:
        raise broken(part, f"has a codebook of {size!r} codes; it must be a whole number from 1")
    return size


def _checked_grid(part: Tokenizer, grid: Callable[[ImageInfo], Any], info: ImageInfo) -> tuple[int, int]:
    sides = grid(info)
    if not isinstance(sides, tuple) or len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise broken(
            part,
            f"gives images of {info.height}×{info.width} the grid {sides!r}; it must be height and width, whole numbers from 1, "
            "or raise GridError",
        )
    return sides


def _checked_build(part: Tokenizer, build: Callable[..., Any], state: LearnedState, device: str) -> TokenizerModel:
    model = build(state, device)
    if not isinstance(model, TokenizerModel):
        raise broken(part, f"builds {type(model).__name__}; it must build a TokenizerModel")
    if model._part is None:
        # A part that builds with another one: its checks read what is known already.
        model._part = part
    return model


def _checked_encode(model: TokenizerModel, encode: Callable[[Tensor], Any], images_BHWC: Tensor) -> Tensor:
    part = model._part
    if part is None:
        return encode(images_BHWC)  # type: ignore[no-any-return]
    check_tensor(f"tokenizer {part.name!r}", "images", images_BHWC, "uint8", "BHWC", "levels from 0 to 255, the channels last")
    count, height, width, channels = images_BHWC.shape
    grid = part.grid(ImageInfo(height, width, channels, ("",)))
    codes_BHW = encode(images_BHWC)
    _check_tensor(part, "encodes to", codes_BHW, "int64", (count, *grid))
    codes = part.codebook_size()
    lowest, highest = _range(codes_BHW)
    if lowest < 0 or highest >= codes:
        raise broken(part, f"encodes to codes from {lowest} to {highest}; with {codes} codes they must be from 0 to {codes - 1}")
    return codes_BHW  # type: ignore[no-any-return]


def _checked_decode(model: TokenizerModel, decode: Callable[[Tensor], Any], codes_BHW: Tensor) -> Tensor:
    part = model._part
    if part is None:
        return decode(codes_BHW)  # type: ignore[no-any-return]
    check_tensor(
        f"tokenizer {part.name!r}",
        "codes",
        codes_BHW,
        "int64",
        "BHW",
        "grids of codes; .long() and .reshape(-1, height, width) make them",
    )
    lowest, highest, codes = *_range(codes_BHW), part.codebook_size()
    if lowest < 0 or highest >= codes:
        wrong = lowest if lowest < 0 else highest
        raise UserError(f"tokenizer {part.name!r} was given code {wrong}; its codes are 0 … {codes - 1}")
    images_BHWC = decode(codes_BHW)
    shape = tuple(getattr(images_BHWC, "shape", ()))
    _check_tensor(part, "decodes to", images_BHWC, "uint8", (len(codes_BHW), *shape[1:4]) if len(shape) == 4 else None)
    height, width, channels = shape[1:]
    try:
        grid = part.grid(ImageInfo(height, width, channels, ("",)))
    except GridError as error:
        raise broken(part, f"decodes to images of {shape[1:]}, which it does not encode: {error}") from error
    if grid != codes_BHW.shape[1:]:
        raise broken(
            part, f"decodes codes of a grid of {tuple(codes_BHW.shape[1:])} to images of {shape[1:]}, whose grid is {grid}"
        )
    return images_BHWC  # type: ignore[no-any-return]


def _range(codes_BHW: Tensor) -> tuple[int, int]:
    """The lowest and the highest code, read together, because on a GPU each reading waits."""
    import torch

    if not codes_BHW.numel():
        return 0, 0
    lowest, highest = torch.stack(codes_BHW.aminmax()).tolist()
    return lowest, highest


def _check_tensor(part: Tokenizer, does: str, tensor: Any, dtype: str, shape: tuple[int, ...] | None) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.dtype != getattr(torch, dtype) or tensor.shape != (shape or ()):
        returned = f"{tensor.dtype} {tuple(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise broken(part, f"{does} {returned}; it must be a tensor of {dtype} {shape or '(B, H, W, C)'}")
