"""The zarr.json of a stage output: its record, and a seal over every byte of the file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import final

from pydantic import BaseModel, ConfigDict, Field

from rarkit.cache.record import FORMAT, Record, Sha256
from rarkit.files.stored_json import Format, parsed

LARGEST = 2**27
"""Bytes of a zarr.json: the digests of a million chunks take 80 MB."""
_BLANK = b"0" * 64
"""Stands in the place of the seal while it is computed."""


@final
@dataclass(frozen=True)
class NewerRecord:
    """A record that a newer rarkit wrote, in a format that this one does not know."""

    format: int


@final
class _Head(BaseModel):
    model_config = ConfigDict(strict=True)

    format: Format = 1


@final
class _Attributes(BaseModel):
    model_config = ConfigDict(strict=True)

    seal: Sha256 | None = Field(None, alias="rarkit_seal")
    head: _Head | None = Field(None, alias="rarkit")


@final
class _Group(BaseModel):
    model_config = ConfigDict(strict=True)

    attributes: _Attributes


@final
class _SealedAttributes(BaseModel):
    model_config = ConfigDict(strict=True)

    record: Record = Field(alias="rarkit")


@final
class _SealedGroup(BaseModel):
    model_config = ConfigDict(strict=True)

    attributes: _SealedAttributes


def sealed(record: Record) -> bytes:
    """The metadata of a zarr group that holds a record and its seal: the SHA-256 of the file with zeros in the seal's place."""
    attributes = {"rarkit_seal": _BLANK.decode(), "rarkit": record.as_json()}
    data = json.dumps({"attributes": attributes, "zarr_format": 3, "node_type": "group"}, indent=2).encode()
    # The seal stands first, so that it is found even if the record has the same digits.
    return data.replace(_BLANK, _sha256(data), 1)


def opened(zarr_json: bytes) -> Record | NewerRecord | None:
    """The record in a zarr.json; None where another program made the group.

    Raises:
        ValueError: it is damaged: no JSON, not as records are, or changed since it was sealed. The message is short.
    """
    attributes = parsed(_Group, zarr_json, LARGEST).attributes
    if attributes.seal is not None:
        seal = attributes.seal.encode()
        if _sha256(zarr_json.replace(seal, _BLANK, 1)) != seal:
            raise ValueError("it is not what was written")
    if attributes.head is None:
        return None
    if attributes.head.format > FORMAT:
        return NewerRecord(attributes.head.format)
    record = parsed(_SealedGroup, zarr_json, LARGEST).attributes.record
    if record.is_sealed and attributes.seal is None:
        raise ValueError("its seal is missing")
    return record


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
