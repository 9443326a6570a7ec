"""What a receipt says of a run, as far as it is read again: which outputs it needs, whose it is, and what it ran on."""

from __future__ import annotations

from typing import Annotated, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from rarkit.cache.holder import StoredHolder
from rarkit.cache.record import Name, Sha256
from rarkit.files.stored_json import Format, Text
from rarkit.images import MOST_CLASSES, Split

FORMAT = 3
"""Format of the receipts that this version writes.

Format 1 had no number, and did not record size and classes of the images; format 2 had no ``variant``, ``folder``, ``host`` and
``splits``, and paths as the recipe had them."""
LARGEST = 2**26
"""Bytes of a receipt. One with the names of ImageNet-21k's classes has a fiftieth of them."""

Folder = Annotated[str, StringConstraints(min_length=1, max_length=2**12, pattern=r"^[^\x00]*$")]
Part = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
"""A stage or a fingerprint, a part of the path of an output."""
Side = Annotated[int, Field(ge=1, lt=2**31)]


@final
class NeededOutput(BaseModel):
    """An output of a stage that the run needs, with what its fingerprint was made from."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: Part
    fingerprint: Part
    identity: dict[str, JsonValue] = {}
    upstream: dict[str, str] = {}


@final
class Variant(BaseModel):
    """Which recipe it is: its file and overrides, or its content. ``rarkit.pipeline.run_folder.variant`` makes it."""

    model_config = ConfigDict(strict=True, frozen=True)

    file: Text | None = None
    overrides: tuple[Text, ...] = ()
    content: Text | None = None


@final
class Images(BaseModel):
    """An ``ImageInfo``."""

    model_config = ConfigDict(strict=True, frozen=True)

    height: Side
    width: Side
    channels: Literal[1, 3]
    class_names: Annotated[tuple[Text, ...], Field(max_length=MOST_CLASSES)]


@final
class UsedWeights(BaseModel):
    """A file of weights that the run read."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: Sha256


@final
class UsedSource(BaseModel):
    """A part that was registered in Python: its name, the class that it is ``of``, where that was, and the digest of its source."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: Text
    of: Text
    file: Text | None = None
    sha256: Sha256


@final
class Receipt(BaseModel):
    """The receipt of a finished run, or of one that has begun. An older rarkit did not write all of it."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Format = 1
    recipe_name: Text
    variant: Variant | None = None
    folder: Folder | None = None
    """The folder of the run on the machine that wrote it."""
    host: Text | None = None
    when: Text = ""
    process: StoredHolder | None = None
    """Of a run that has begun: which process it is."""
    stages: Annotated[tuple[NeededOutput, ...], Field(max_length=1000)]
    recipe: dict[str, JsonValue] | None = None
    """None in the receipt of a run that has begun, as all that follows."""
    store: Text | None = None
    images: Images | None = None
    splits: tuple[Split, ...] | None = None
    weights: dict[str, UsedWeights] = {}
    """By table."""
    sources: dict[str, UsedSource] = {}
    """By table; of parts that were registered in Python."""
    files: tuple[Name, ...] = ()
    """In the folder of the run."""
