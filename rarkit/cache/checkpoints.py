"""Checkpoints in an unfinished output: ``checkpoint-<step>.pt``, sealed by ``checkpoint-<step>.json`` with its size and checksum.

The seal is written after the state, so that a checkpoint that was cut off is passed over.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import zipfile
from typing import Any, final

from pydantic import BaseModel, ConfigDict

from rarkit.cache.output import StageOutput
from rarkit.cache.record import Sha256, Size
from rarkit.errors import IncompleteError
from rarkit.files.stored_json import LARGEST, parsed
from rarkit.files.weight_bounds import check_archive


@final
class _Seal(BaseModel):
    model_config = ConfigDict(strict=True)

    sha256: Sha256
    bytes: Size
    output: str | None = None
    """The fingerprint of what is being trained: another training's checkpoint is none of its own. None of an older rarkit."""


def write_checkpoint(output: StageOutput, state: dict[str, Any], step: int) -> None:
    """Writes a state of tensors and plain data, then removes the older ones."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    names = _names(step)
    seal = _Seal(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), output=output.fingerprint)
    older = [name for name in output.file_names() if name not in names]
    output.write_file(names[0], data)
    output.write_file(names[1], seal.model_dump_json().encode())
    for name in older:
        output.remove_file(name)


def checkpoint_step(output: StageOutput) -> int | None:
    """The step of the latest checkpoint that is whole, judged by its size; None if there is none. Loads no torch."""
    sizes = output.file_sizes()
    for step in _sealed(output):
        state, name = _names(step)
        seal = _seal(output, name)
        if state in sizes and seal is not None and seal.bytes == sizes[state]:
            return step
    return None


def latest_checkpoint(output: StageOutput) -> dict[str, Any] | None:
    """The state of the latest checkpoint that is whole, on the CPU; None if there is none.

    Raises:
        IncompleteError: it is none that ``write_checkpoint`` wrote.
    """
    names = output.file_names()
    for step in _sealed(output):
        state, name = _names(step)
        seal = _seal(output, name)
        data = output.read_file(state) if state in names and seal is not None else b""
        if seal is not None and seal.sha256 == hashlib.sha256(data).hexdigest():
            return _loaded(data, f"{state} of {output}", output.cure)
    return None


def _loaded(data: bytes, what: str, cure: str) -> dict[str, Any]:
    import torch

    try:
        # A seal tells that it is whole, not who wrote it.
        check_archive(io.BytesIO(data))
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError) as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise IncompleteError(f"{what} is no checkpoint of rarkit ({reason}). {cure}") from error
    return state


def _sealed(output: StageOutput) -> list[int]:
    """The steps with a seal, latest first."""
    seals = (re.fullmatch(r"checkpoint-(0|[1-9]\d{0,17})\.json", name) for name in output.file_names())
    return sorted((int(seal[1]) for seal in seals if seal is not None), reverse=True)


def _seal(output: StageOutput, name: str) -> _Seal | None:
    """What a seal says; None if it is only half-written, or seals another output's checkpoint."""
    try:
        seal = parsed(_Seal, output.read_file(name)) if output.file_sizes()[name] <= LARGEST else None
    except ValueError:
        return None
    return seal if seal is not None and seal.output in (None, output.fingerprint) else None


def _names(step: int) -> tuple[str, str]:
    return f"checkpoint-{step}.pt", f"checkpoint-{step}.json"
