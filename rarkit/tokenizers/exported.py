"""A tokenizer in a file of its own: one safetensors file with the arrays that it is built from, and JSON that names the part.

The file may be a stranger's: nothing in it is run, it names no other file, and it is read within bounds. Sizes and the codebook are
in its header, so planning reads neither tensors nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from rarkit import __version__
from rarkit.errors import CapabilityError, GridError, PluginError, WeightsError, sentences
from rarkit.files.safetensors_metadata import metadata_of
from rarkit.files.stored_json import Format, Text, first_mistake, read_json
from rarkit.files.tensor_content import AGAIN, Digest, check_digest, digest_of
from rarkit.files.weight_bounds import LARGEST_HEADER
from rarkit.files.weight_files import BUNDLE, local_copy
from rarkit.files.weights import checksum, read_tensors, write_tensors
from rarkit.files.writable import check_free
from rarkit.images import ImageInfo
from rarkit.registry.addresses import addresses
from rarkit.registry.component import Location, NotInFingerprint
from rarkit.registry.contract import origin
from rarkit.registry.loader import parts
from rarkit.registry.registered import source_of
from rarkit.tokenizers.base import ImageDecoder, LearnedState, Tokenizer, TokenizerModel

if TYPE_CHECKING:
    from torch import Tensor

FORMAT, SUFFIX = 1, ".safetensors"
KEY = "tokenizer"
"""The entry of the metadata that makes a file one of these."""
LARGEST_DIVISOR = 256
"""Of the sides of images, that a message looks for."""


@final
class Content(BaseModel):
    """The JSON of a file."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Format
    part: dict[str, JsonValue]
    """The part's table, as in a recipe."""
    version: int
    """Of the part."""
    made_by: Text
    """The distribution that the part came from."""
    rarkit: Text
    digest: Digest
    """Of the arrays."""
    channels: Literal[1, 3] | None = None
    """Those of the images it was learned from, if they were known."""
    source: Annotated[str, Field(max_length=64)] | None = None
    """The digest of its source, if it was registered in Python."""


@final
class Exported(Tokenizer):
    """A tokenizer that ``rarkit export RUN --tokenizer FILE`` wrote: any other part with its settings and all that it learned.

    A table with ``weights`` and no ``name`` selects it. The part must be installed, in the version that wrote the file.
    """

    name: Literal["exported"] = "exported"
    weights: Annotated[Location, NotInFingerprint()]
    """The safetensors file."""

    def content(self) -> str:
        # Also where the file is whole and of another part, a plan says it.
        self.part()
        return checksum(self.weights)

    def codebook_size(self) -> int:
        return self.part().codebook_size()

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        channels = _content(self.weights).channels
        if channels not in (None, info.channels):
            raise GridError(
                f"the tokenizer in {self.weights} was learned from images with {channels} "
                f"channel{'s' if channels != 1 else ''}, but these have {info.channels}. Set channels in [dataset], or choose "
                "another [tokenizer]."
            )
        part = self.part()
        try:
            return part.grid(info)
        except GridError as error:
            # The part's own message would change its settings, which are in the file.
            raise GridError(f"{self.weights}: {_cure_of_sizes(part, info) or error}") from error

    def capability(self, device: str, dtype: str) -> str | None:
        return self.part().capability(device, dtype)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        part, arrays = self.without_files(state)
        return part.build(arrays, device)

    def image_decoder(self, state: LearnedState) -> ImageDecoder | None:
        part, arrays = self.without_files(state)
        return part.image_decoder(arrays)

    def without_files(self, state: LearnedState) -> tuple[Tokenizer, LearnedState]:
        """The part that is in the file, and its arrays.

        Raises:
            WeightsError: the file is missing or damaged, or the part is not installed in the version that wrote it.
        """
        part = self.part()
        tensors, _ = read_tensors(local_copy(self.weights))
        arrays = arrays_of(tensors, self.weights)
        check_digest(tensors, _content(self.weights).digest, self.weights)
        return part, arrays

    def part(self) -> Tokenizer:
        """The part that is in the file, without its arrays. Raises WeightsError and PluginError as ``without_files`` does."""
        return _part_of(_content(self.weights), self.weights)


def is_exported(place: str) -> bool:
    """Whether a path or fsspec URL is a file that ``write_tokenizer`` wrote, of whatever part.

    Raises:
        WeightsError: there is no such file, or it is damaged.
    """
    return place.lower().endswith(SUFFIX) and KEY in metadata_of(local_copy(place))


def arrays_of(tensors: Mapping[str, Tensor], place: str) -> dict[str, NDArray[np.generic]]:
    """The arrays of a tokenizer from the tensors of a file. Raises WeightsError if they are of numbers that NumPy does not have."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, tensor in tensors.items():
        try:
            arrays[name] = tensor.numpy()
        except TypeError as error:
            what = f"array {name!r} is of {tensor.dtype}, which no tokenizer learns"
            raise WeightsError(f"{place} is damaged ({what}). {AGAIN}") from error
    return arrays


def write_tokenizer(
    tokenizer: Tokenizer, state: LearnedState, place: str, *, channels: int | None = None, overwrite: bool = False
) -> str:
    """Writes a tokenizer to a file, whole or not at all.

    Args:
        tokenizer: the part.
        state: what it learned; empty if it learns nothing.
        place: path or fsspec URL of the file, ``.safetensors``.
        channels: of the images it was learned from; None if any will do.
        overwrite: replace a file that is there.

    Returns:
        The place.

    Raises:
        WeightsError: the place has another suffix, or cannot be written.
        StoreError: there is a file, and ``overwrite`` is false.
        CapabilityError: the part reads files that cannot be in this one.
    """
    import torch

    if not place.lower().endswith(SUFFIX):
        raise WeightsError(f"{place} is to be a tokenizer's file, whose name has to end in {SUFFIX}. Give it that suffix.")
    part, arrays = tokenizer.without_files(state)
    for address in addresses(part):
        raise CapabilityError(
            f"[tokenizer] {part.name!r} ({origin(type(part))}) reads {address.place}, which cannot be in a tokenizer's file. "
            f"Choose another [tokenizer], or leave out {address.setting}."
        )
    tensors = {name: torch.from_numpy(np.atleast_1d(array)) for name, array in arrays.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "part": part.model_dump(mode="json"),
        "version": type(part).version,
        "made_by": origin(type(part)),
        "rarkit": __version__,
        "channels": channels,
        "source": source_of(type(part)),
        "digest": digest_of(tensors),
    }
    if not overwrite:
        check_free(place)
    write_tensors(tensors, place, {KEY: Content(**about).model_dump_json()})
    return place


def _cure_of_sizes(part: Tokenizer, info: ImageInfo) -> str:
    """Which sizes of images a part takes, where sides have to be multiples of a number; empty where that is not what is wrong."""

    def fits(*sides: int) -> bool:
        try:
            part.grid(replace(info, height=sides[0], width=sides[1]))
        except GridError:
            return False
        return True

    for divisor in range(2, LARGEST_DIVISOR + 1):
        below, above = ([(side // divisor + more) * divisor for side in (info.height, info.width)] for more in (0, 1))
        if fits(*above) and (not all(below) or fits(*below)):
            return (
                f"its tokenizer {part.name!r} does not take images of {info.height}×{info.width}. In [dataset], choose a size "
                f"divisible by {divisor}, {' or '.join(f'{high}×{wide}' for high, wide in (below, above) if high and wide)}."
            )
    return ""


def _content(place: str) -> Content:
    """What the header of a file says."""
    path = local_copy(place)
    about = path.stat()
    return _content_of(place, path, about.st_ino, about.st_size, about.st_mtime_ns)


# A plan asks for grid and codebook several times.
@lru_cache(maxsize=64)
def _content_of(place: str, path: Path, *version: int) -> Content:
    metadata = metadata_of(path) if path.suffix == SUFFIX else {}
    if KEY not in metadata:
        if BUNDLE in metadata:
            cure = f"It is a bundle: rarkit export {place} --tokenizer FILE writes its tokenizer."
        else:
            cure = 'If it is the file of another part, name that too: [tokenizer] name = "…".'
        raise WeightsError(f"{place} is no tokenizer's file, as rarkit export RUN --tokenizer FILE writes it. {cure}")
    data = metadata[KEY].encode(errors="surrogatepass")
    return read_json(Content, data, place, AGAIN, most=LARGEST_HEADER, newest=FORMAT, raising=WeightsError)


def _part_of(content: Content, place: str) -> Tokenizer:
    """The part that a file describes.

    Raises:
        WeightsError: it is not installed, not in this version, has invalid settings, or reads a file.
        PluginError: it was registered in Python with another source than is known here.
    """
    name, registry = content.part.get("name"), parts().tokenizers
    if not isinstance(name, str) or name not in registry:
        told = registry.unknown(name) if isinstance(name, str) else "its part has no name"
        raise WeightsError(sentences(f"{place} has a tokenizer of {content.made_by}, which is not installed here: {told}"))
    cls = registry[name]
    if cls.version != content.version:
        raise WeightsError(
            f"{place} has version {content.version} of tokenizer {name!r}, and here is version {cls.version} "
            f"({origin(cls)}), which makes other codes or images. Export it again from a run of this version, or install "
            f"{content.made_by}, which wrote it."
        )
    if content.source != source_of(cls):
        raise PluginError(
            f"{place} has a tokenizer {name!r} of {content.made_by}, whose source is not that of the {origin(cls)} known here. "
            "Register the class as it was, or export the tokenizer again."
        )
    try:
        part = cls.model_validate(content.part)
    except ValidationError as error:
        raise WeightsError(f"{place} is damaged ({first_mistake(error)}). {AGAIN}") from error
    for address in addresses(part):
        raise WeightsError(f"{place} has a tokenizer that wants to read {address.place} ({address.setting}): refused. {AGAIN}")
    return part
