"""Checkpoints in an unfinished output: ``checkpoint-<step>.pt``, sealed by ``checkpoint-<step>.json`` with its size and checksum.

The seal is written after the state, so that a checkpoint that was cut off is passed over.
"""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

from rarkit.cache.output import StageOutput


def write_checkpoint(output: StageOutput, state: dict[str, Any], step: int) -> None:
    """Writes a state of tensors and plain data, then removes the older ones."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    names = _names(step)
    older = [name for name in output.file_names() if name not in names]
    output.write_file(names[0], data)
    output.write_file(names[1], json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}).encode())
    for name in older:
        output.remove_file(name)


def checkpoint_step(output: StageOutput) -> int | None:
    """The step of the latest checkpoint that is whole, judged by its size; None if there is none. Loads no torch."""
    sizes = output.file_sizes()
    for step in _sealed(output):
        state, seal = _names(step)
        if state in sizes and _seal(output, seal).get("bytes") == sizes[state]:
            return step
    return None


def latest_checkpoint(output: StageOutput) -> dict[str, Any] | None:
    """The state of the latest checkpoint that is whole, on the CPU; None if there is none."""
    import torch

    names = output.file_names()
    for step in _sealed(output):
        state, seal = _names(step)
        data = output.read_file(state) if state in names else b""
        if _seal(output, seal).get("sha256") == hashlib.sha256(data).hexdigest():
            loaded: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return loaded
    return None


def _sealed(output: StageOutput) -> list[int]:
    """The steps with a seal, latest first."""
    seals = [name for name in output.file_names() if name.startswith("checkpoint-") and name.endswith(".json")]
    return sorted((int(name.removeprefix("checkpoint-").removesuffix(".json")) for name in seals), reverse=True)


def _seal(output: StageOutput, name: str) -> dict[str, Any]:
    """What a seal says; empty if it is only half-written."""
    try:
        return dict(json.loads(output.read_file(name)))
    except ValueError:
        return {}


def _names(step: int) -> tuple[str, str]:
    return f"checkpoint-{step}.pt", f"checkpoint-{step}.json"
