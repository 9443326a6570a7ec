"""What a run left in the store and in `runs/`, as digests: two runs with the same digests have the same bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store

TIMES = ("started", "finished", "seconds", "host")
"""What differs between records of the same output."""


def bits(folder: Path, skip: Callable[[StageOutput], bool] = lambda _: False) -> dict[str, str]:
    """Digests of arrays, files and records of all complete outputs in ``folder/store``, and of the results in ``folder/runs``.

    Outputs that ``skip`` says to skip are left out.

    Raises:
        StoreError: an output says that it is complete, and cannot be read.
    """
    digests: dict[str, str] = {}
    for output in Store(str(folder / "store")).outputs():
        if skip(output):
            continue
        record = output.record()
        if record is None or not record.complete:
            continue
        name = f"{output.stage}/{output.fingerprint}"
        kept = {key: value for key, value in record.as_json().items() if key not in TIMES}
        digests[f"{name} record"] = _digest(json.dumps(kept, sort_keys=True).encode())
        for array in record.arrays:
            digests[f"{name} {array}"] = _digest(output.read_array(array).tobytes())
        for file in record.files:
            digests[f"{name} {file}"] = _digest(output.read_file(file))
    for path in sorted(folder.glob("runs/*/*")):
        if path.suffix in (".png", ".npz", ".jsonl") or path.name == "metrics.json":
            digests[f"runs {path.name}"] = _digest(path.read_bytes())
    return digests


def trained(folder: Path) -> dict[str, str]:
    """Digests of what the training wrote."""
    return {name: digest for name, digest in bits(folder).items() if name.startswith("train/") and not name.endswith(" record")}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
