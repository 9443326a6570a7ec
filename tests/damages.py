"""Damages to finished stores, drawn at random: what disks, copies and people do to files, metadata included."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD, METADATA, CHUNK, FILE = "record", "array metadata", "chunk", "file"
KINDS = (RECORD, METADATA, CHUNK, FILE)
ONE = ("flip", "cut", "delete", "zero", "noise")
"""What is done to one file: a bit, the end, all of it, all of its bytes, a few of its bytes."""
EDIT = "edit"
"""One value of a file of metadata is another one, and the file is as well-formed as before."""
SWAPS = ("swap", "swap with another run")
CASES = tuple((kind, act) for kind in KINDS for act in (*ONE, *SWAPS, *((EDIT,) if kind in (RECORD, METADATA) else ())))
EDITED = (("little", "big"), ("true", "false"), ("0", "1"), ("1", "2"), ("6", "5"), ("a", "b"), ("float32", "float16"))


@dataclass(frozen=True)
class Damage:
    """What was done."""

    kind: str
    act: str
    files: tuple[str, ...]
    """The files that changed, within the store."""

    def __str__(self) -> str:
        return f"{self.act} of {self.kind} {' and '.join(self.files)}"

    @property
    def outputs(self) -> set[str]:
        """The outputs that have changed, as ``stage/fingerprint``."""
        return {"/".join(file.split("/")[:2]) for file in self.files}

    @property
    def stages(self) -> set[str]:
        return {file.split("/")[0] for file in self.files}


def damaged(store: Path, other: Path, kind: str, act: str, chance: random.Random, stages: tuple[str, ...] = ()) -> Damage:
    """Damages a store.

    Args:
        store: the folder of a store, which changes.
        other: the store of another run, with outputs of the same stages; it stays as it is.
        kind, act: one of ``CASES``.
        chance: chooses.
        stages: of which outputs; all if empty.
    """
    own = [path for path in _files(store, kind) if not stages or path.relative_to(store).parts[0] in stages]
    path = chance.choice(own)
    name, whole = str(path.relative_to(store)), path.read_bytes()
    if act in SWAPS:
        place = store if act == "swap" else other
        others = [file for file in _files(place, kind) if file.read_bytes() != whole]
        # Such a swap is not seen by sizes.
        same_size = [file for file in others if file.stat().st_size == len(whole)]
        chosen = chance.choice(same_size or others)
        path.write_bytes(chosen.read_bytes())
        if act == "swap":
            chosen.write_bytes(whole)
            return Damage(kind, act, (name, str(chosen.relative_to(store))))
        return Damage(kind, act, (name,))
    if act == "delete":
        path.unlink()
        return Damage(kind, act, (name,))
    changed = whole
    while changed == whole:
        changed = _changed(whole, act, chance)
    path.write_bytes(changed)
    return Damage(kind, act, (name,))


def without_seal(output: Path) -> dict[str, Any]:
    """Rewrites the record of an output as a rarkit wrote it that sealed files alone; returns the metadata of the group."""
    path = output / "zarr.json"
    metadata: dict[str, Any] = json.loads(path.read_text())
    del metadata["attributes"]["rarkit_seal"]
    record = metadata["attributes"]["rarkit"]
    record["format"] = 2
    for array in record["arrays"].values():
        del array["sha256"], array["chunks"]
    path.write_text(json.dumps(metadata))
    return metadata


def _files(store: Path, kind: str) -> list[Path]:
    patterns = {RECORD: "*/*/zarr.json", METADATA: "*/*/*/zarr.json", CHUNK: "*/*/*/c/**/*", FILE: "*/*/files/*"}
    return sorted(path for path in store.glob(patterns[kind]) if path.is_file())


def _changed(whole: bytes, act: str, chance: random.Random) -> bytes:
    changed = bytearray(whole)
    if act == "flip":
        changed[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    elif act == "cut":
        del changed[chance.randrange(len(whole)) :]
    elif act == "zero":
        changed = bytearray(len(whole))
    elif act == "noise":
        start = chance.randrange(len(whole))
        changed[start : start + 16] = chance.randbytes(len(changed[start : start + 16]))
    else:
        metadata = json.loads(whole)
        _edit(metadata, chance)
        changed = bytearray(json.dumps(metadata, indent=2).encode())
    return bytes(changed)


def _edit(metadata: Any, chance: random.Random) -> None:
    """Changes one value in JSON data."""
    places = list(_leaves(metadata))
    table, key = chance.choice(places)
    value = table[key]
    if isinstance(value, bool) or value is None:
        table[key] = not value
    elif isinstance(value, int | float):
        table[key] = value + chance.choice((-1, 1))
    else:
        known = dict(EDITED)
        table[key] = known.get(value, value[:-1] + ("b" if value.endswith("a") else "a"))


def _leaves(data: Any) -> list[tuple[Any, Any]]:
    leaves = []
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        leaves += _leaves(value) if isinstance(value, dict | list) else [(data, key)]
    return leaves
