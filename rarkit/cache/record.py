"""The record of a stage output: what its zarr.json tells about it, and whether all that the record lists is there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Self, final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, StringConstraints, model_validator

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.fingerprint import fingerprint, is_fingerprint
from rarkit.files.stored_json import Format, Text

ABSENT, UNFINISHED, NO_RECORD = "there is none", "it was never finished", "its zarr.json is missing"
FORMAT = 3
"""The format of what this rarkit writes. In format 1 the record had no number; arrays and files are the same in all. Format 3 has a
seal over the zarr.json, and digests of every array's metadata and of every chunk."""
NAMES_SINCE = 2
"""Fingerprints are made as they are today since this format."""
SEALED_SINCE = 3
SEALED_IN_PART = "sealed in part: an older rarkit made it"
MOST_CHUNKS = 2**20
"""Of an array: 16 TiB in the largest of chunks."""
LARGEST_METADATA = 2**20
"""Bytes of an array's zarr.json, which has less than a thousand. Pipes and devices have none."""
_YEAR_10000 = 253_402_300_800.0
_PART = r"[^/\\.\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(pattern=rf"^{_PART}(/{_PART})*$", max_length=500)]
"""Of an array or file: a path within the output that does not lead out of it."""
Size = Annotated[int, Field(ge=0, lt=2**63)]
Moment = Annotated[FiniteFloat, Field(ge=0, lt=_YEAR_10000)]
Number = Annotated[str, StringConstraints(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64))$")]


@final
class StoredArray(BaseModel):
    """What a record says of an array: its layout, and how its files must be."""

    model_config = ConfigDict(strict=True, frozen=True)

    shape: Annotated[tuple[Size, ...], Field(min_length=1, max_length=32)]
    dtype: Number
    rows: Annotated[int, Field(ge=1, lt=2**63)]
    sha256: Sha256 | None = None
    """Of its zarr.json; None in formats before 3."""
    chunks: tuple[Sha256, ...] | None = None
    """Of each chunk, in order: a chunk in the place of another is seen. None before format 3, and until the output is complete."""

    @property
    def layout(self) -> Layout:
        return Layout(self.shape, self.dtype, self.rows)

    @classmethod
    def of(cls, layout: Layout, sha256: str | None, chunks: tuple[str, ...] | None = None) -> Self:
        """Raises ValueError where a record cannot hold such an array."""
        return cls(shape=layout.shape, dtype=layout.dtype, rows=layout.rows, sha256=sha256, chunks=chunks)

    @model_validator(mode="after")
    def _count(self) -> Self:
        blocks = self.layout.blocks
        if blocks > MOST_CHUNKS:
            raise ValueError(f"{blocks} chunks are more than {MOST_CHUNKS}")
        if self.chunks is not None and len(self.chunks) != blocks:
            raise ValueError(f"{len(self.chunks)} digests of {blocks} chunks")
        return self


@final
class Record(BaseModel):
    """The record of one output. What a newer rarkit adds to a format that this one reads is passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    format: Format = 1
    complete: bool = False
    stage: Name
    identity: dict[str, JsonValue] = {}
    """With ``stage`` and ``upstream`` what the fingerprint was made from: settings, versions of parts, sizes."""
    upstream: dict[Name, Name] = {}
    """The fingerprint of each output that it was made from, by stage."""
    recipe_name: Text | None = None
    overrides: tuple[Text, ...] | None = None
    """None where a rarkit made it that left no receipts in the store."""
    recipe: Text | None = None
    versions: dict[str, Text] = {}
    host: Text | None = None
    machine: Text | None = None
    started: Moment | None = None
    finished: Moment | None = None
    seconds: Moment | None = None
    """How long the run that finished it worked on it; None where an older rarkit did.

    The time from ``started`` to ``finished`` is none: an interrupted output may lie for days before a run resumes it."""
    arrays: dict[Name, StoredArray] = {}
    files: dict[Name, Size] = {}
    """Bytes of each file that belongs to it."""
    sha256: dict[Name, Sha256] = {}
    """Of each of these files."""
    grid: tuple[Size, Size] | None = None
    """Height and width of the grids of its tokens."""
    classes: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    """Of imported tokens: one more than the largest class id."""
    sets: tuple[Text, ...] = ()
    """The sets of images whose features it holds."""
    parameters: Size | None = None
    """Of the model in it; ``precision`` and ``device`` are those that the model was trained in and on."""
    precision: Text | None = None
    device: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.complete and self.finished is None:
            raise ValueError("it is complete, and was finished at no time")
        if self.complete and self.is_sealed:
            without = [name for name, array in self.arrays.items() if array.sha256 is None or array.chunks is None]
            without += sorted(self.files.keys() ^ self.sha256.keys())
            if without:
                raise ValueError(f"there is no digest of {without[0]}")
        return self

    @classmethod
    def begun(cls, stage: str, about: Mapping[str, Any]) -> Self:
        """The record of an output that nothing has been written to yet; ``about``: fields, as plain JSON data."""
        return cls._of({**about, "format": FORMAT, "stage": stage, "started": round(time.time(), 3)})

    def changed(self, **changes: Any) -> Self:
        """This record with other fields, in the format of this rarkit."""
        plain = {key: _plain(value) for key, value in changes.items()}
        return self._of({**self.as_json(), **plain, "format": FORMAT})

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self:
        unknown = fields.keys() - cls.model_fields.keys()
        assert not unknown, f"a record has no {sorted(unknown)}"
        return cls.model_validate_json(json.dumps(fields))

    def as_json(self) -> dict[str, Any]:
        """As plain JSON data; what has no value is left out."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def is_sealed(self) -> bool:
        """Whether it vouches for metadata and chunks too: records of an older rarkit vouch for files alone."""
        return self.format >= SEALED_SINCE

    def misnamed(self, name: str) -> str | None:
        """What is wrong with finding it under a name; None if nothing is, or the name is no fingerprint."""
        if not self.is_sealed or not is_fingerprint(name):
            return None
        try:
            made_from = fingerprint(self.stage, self.identity, self.upstream)
        except ValueError:
            # NaN, which no fingerprint covers.
            made_from = "nothing"
        return None if made_from == name else f"it is the output {self.stage}/{made_from}, in the place of this one"

    def defect(self, sizes: Mapping[str, int]) -> str | None:
        """Why the output cannot be used, or None: judged by the size of every file that is there, by path within the output."""
        if not self.complete:
            return UNFINISHED
        for name, array in self.arrays.items():
            if (size := sizes.get(f"{name}/zarr.json")) is None:
                return f"array {name!r} has lost its zarr.json"
            if not 0 < size <= LARGEST_METADATA:
                return f"the zarr.json of array {name!r} has {size:,} bytes"
            if (chunk_defect := array.layout.defect(name, sizes)) is not None:
                return chunk_defect
        for name, size in self.files.items():
            if sizes.get(f"files/{name}") != size:
                return f"file {name!r} has {sizes.get(f'files/{name}', 0)} bytes instead of {size}"
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def refusal(stage: str, path: str, reason: str, writer: object | None, cure: str) -> str:
    """What to say where an output is needed and cannot be used.

    Args:
        stage: the stage.
        path: the output.
        reason: what ``defect`` returned, or ABSENT.
        writer: the process that is writing it at the moment.
        cure: how to make it again, as a sentence.
    """
    what = f"the output of stage {stage!r} at {path}"
    if writer is not None:
        return f"{what} is being written by {writer}. Wait for that run."
    if reason == ABSENT:
        return f"there is no output of stage {stage!r} at {path}. Check the path, or run its recipe again."
    if reason == UNFINISHED:
        return f"{what} is not finished: the run that made it stopped. Start it again to go on."
    return f"{what} is damaged: {reason}. {cure}"
