"""The record of a stage output: what its zarr.json tells about it, and whether all that the record lists is there."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from rarkit.cache.chunk_layout import Layout

ABSENT, UNFINISHED = "there is none", "it was never finished"
ATTRIBUTE = "rarkit"
"""The attribute of the zarr group that holds the record."""
FORMAT = 2
"""The format of what this rarkit writes. In format 1 the record had no number; arrays and files were the same."""


def begun(stage: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """The record of an output that nothing has been written to yet."""
    now = time.time()
    return {**about, "format": FORMAT, "complete": False, "stage": stage, "started": now, "arrays": {}, "files": {}}


def finished(files: Mapping[str, int | None], sha256: Mapping[str, str], since: float) -> dict[str, Any]:
    """What makes a record complete: sizes and checksums of the files, and the time since ``since``, which ``monotonic`` gave."""
    done = {"files": files, "sha256": sha256, "complete": True}
    return {**done, "finished": time.time(), "seconds": round(time.monotonic() - since, 3)}


def parse(zarr_json: bytes) -> dict[str, Any]:
    """The record in a zarr.json; empty where another program made the group.

    Raises:
        ValueError: it is damaged.
    """
    metadata = json.loads(zarr_json)
    try:
        record = dict(metadata["attributes"].get(ATTRIBUTE, {}))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"there is no record in it ({type(error).__name__})") from error
    if record and not isinstance(format_of(record), int):
        raise ValueError(f"its format is {format_of(record)!r} instead of a number")
    return record


def format_of(record: Mapping[str, Any]) -> int:
    """The number of the format in which an output was written."""
    number: int = record.get("format", 1)
    return number


def seconds_taken(record: Mapping[str, Any]) -> float | None:
    """How long the run that finished an output worked on it; None where the record of an older rarkit does not tell.

    The time from ``started`` to ``finished`` is none: an interrupted output may lie for days before a run resumes it.
    """
    seconds: float | None = record.get("seconds")
    return seconds


def defect(record: Mapping[str, Any], sizes: Mapping[str, int]) -> str | None:
    """Why an output cannot be used, or None: its record, and the size of every file that is there, by path within the output."""
    if not record.get("complete"):
        return UNFINISHED
    for name, layout in record["arrays"].items():
        if f"{name}/zarr.json" not in sizes:
            return f"array {name!r} has lost its zarr.json"
        if (chunk_defect := Layout.from_json(layout).defect(name, sizes)) is not None:
            return chunk_defect
    for name, size in record["files"].items():
        if sizes.get(f"files/{name}") != size:
            return f"file {name!r} has {sizes.get(f'files/{name}', 0)} bytes instead of {size}"
    return None


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
