"""Which checkpoints of an unfinished output are sealed: ``checkpoint-<step>.json``, written last, lists the files of one.

Reading seals needs no torch, so that a plan can say where a training goes on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Self, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from rarkit.cache.output import StageOutput
from rarkit.cache.record import Sha256, Size
from rarkit.errors import StoreError
from rarkit.files.stored_json import LARGEST, Format, Head, parsed

FORMAT = 2
"""The format of what this rarkit writes. Format 1 was a pickle of all tensors, beside a seal of two fields."""
MOST_RANKS = 4096
PREFIX = "checkpoint-"
"""How the names of all files of checkpoints begin."""
_BLANK = b"0" * 64
"""Stands in the place of the digest while it is computed."""
_STEP = r"(0|[1-9]\d{0,17})"
_SEAL = re.compile(rf"{PREFIX}{_STEP}\.json")

_SHARD = rf"^{PREFIX}{_STEP}-rank-(0|[1-9]\d{{0,5}})\.safetensors$"

ShardName = Annotated[str, StringConstraints(pattern=_SHARD)]


@final
class Shard(BaseModel):
    """What a file of a checkpoint must be."""

    model_config = ConfigDict(strict=True, frozen=True)

    bytes: Size
    sha256: Sha256


@final
class Seal(BaseModel):
    """What a sealed checkpoint consists of."""

    model_config = ConfigDict(strict=True, frozen=True)

    sha256: Sha256 = _BLANK.decode()
    """Of the seal's own bytes, with zeros in this place."""
    format: Format
    output: Annotated[str, StringConstraints(max_length=1000)]
    """The fingerprint of what is being trained: another training's checkpoint is none of its own."""
    step: Annotated[int, Field(ge=0, lt=10**18)]
    facts: dict[str, JsonValue]
    files: Annotated[dict[ShardName, Shard], Field(max_length=MOST_RANKS)]

    @model_validator(mode="after")
    def _own_files(self) -> Self:
        if not all(name.startswith(f"{PREFIX}{self.step}-rank-") for name in self.files):
            raise ValueError("it lists files of another step")
        return self

    def as_bytes(self) -> bytes:
        """As JSON. Raises ValueError if the facts are too many, or hold a number that JSON has not."""
        fields = {**self.model_dump(mode="json"), "sha256": _BLANK.decode()}
        data = json.dumps(fields, indent=1, allow_nan=False).encode()
        if len(data) > LARGEST:
            raise ValueError(f"a seal of {len(data):,} bytes is larger than {LARGEST:,}")
        # It stands first, so that it is found even if the facts have the same digits.
        return data.replace(_BLANK, hashlib.sha256(data).hexdigest().encode(), 1)

    def is_of(self, data: bytes) -> bool:
        """Whether the bytes are those that it was written as."""
        return hashlib.sha256(data.replace(self.sha256.encode(), _BLANK, 1)).hexdigest() == self.sha256


def seal_name(step: int) -> str:
    """The file that seals the checkpoint of a step."""
    return f"{PREFIX}{step}.json"


def shard_name(step: int, rank: int) -> str:
    """The file with the tensors, and parts of tensors, that a rank wrote."""
    return f"{PREFIX}{step}-rank-{rank}.safetensors"


def is_of_checkpoint(name: str) -> bool:
    """Whether a file has the name of ``shard_name`` or ``seal_name``."""
    return (re.fullmatch(_SHARD, name) or _SEAL.fullmatch(name)) is not None


def checkpoint_step(output: StageOutput) -> int | None:
    """The step of the latest checkpoint that is whole, judged by sizes; None if there is none. Loads no torch.

    Raises:
        StoreError: a newer rarkit wrote it.
    """
    return next((seal.step for seal in sealed(output)), None)


def sealed(output: StageOutput) -> Iterator[Seal]:
    """The seals of this training whose files have the sizes that they say, latest first. Raises as ``checkpoint_step``."""
    sizes = output.file_sizes()
    for step in _steps(sizes):
        seal = _seal(output, step, sizes)
        if seal is not None and all(sizes.get(name) == shard.bytes for name, shard in seal.files.items()):
            yield seal


def damaged_steps(output: StageOutput, latest: int | None) -> list[int]:
    """The steps, ascending, of checkpoints that were whole once, since a seal is written last.

    They are those whose sizes are wrong, and those after ``latest``, the last one that is whole (None: there is none).
    """
    whole = {seal.step for seal in sealed(output) if latest is not None and seal.step <= latest}
    return sorted(step for step in _steps(output.file_names()) if step not in whole)


def kept_checkpoints(output: StageOutput, every: int) -> tuple[list[Seal], list[int]]:
    """The checkpoints at multiples of ``every`` steps of which every byte is what was written, and the steps of the others."""
    found = [seal for seal in sealed(output) if seal.step % every == 0]
    whole = [seal for seal in found if all(output.file_sha256(name) == shard.sha256 for name, shard in seal.files.items())]
    known = {seal.step for seal in whole}
    return whole, sorted(step for step in _steps(output.file_names()) if step % every == 0 and step not in known)


def _steps(names: Iterable[str]) -> list[int]:
    """The steps of the seals among files, latest first."""
    return sorted((int(seal[1]) for seal in map(_SEAL.fullmatch, names) if seal is not None), reverse=True)


def _seal(output: StageOutput, step: int, sizes: Mapping[str, int]) -> Seal | None:
    """What a seal says; None if it is only half-written, or seals another output's checkpoint."""
    name = seal_name(step)
    if sizes[name] > LARGEST:
        return None
    data = output.read_file(name)
    try:
        number = parsed(Head, data).format
        seal = parsed(Seal, data) if number == FORMAT else None
    except ValueError:
        return None
    if number > FORMAT:
        raise StoreError(
            f"{name} of {output} was written by a newer rarkit (format {number}; this one reads {FORMAT}). Update rarkit, or "
            f"remove the file to train on from an older checkpoint."
        )
    is_own = seal is not None and (seal.output, seal.step) == (output.fingerprint, step) and seal.is_of(data)
    return seal if is_own else None


def told(seal: Mapping[str, Any]) -> Seal:
    """A seal as the first rank told it to the others."""
    return Seal.model_validate(seal)
