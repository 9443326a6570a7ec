"""The output of ``rarkit cache``: what is in a store, which runs need it, and what of it is damaged."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any, Final, Literal

from rarkit.cache.fingerprint import SHORT, shown
from rarkit.cache.output import StageOutput
from rarkit.cache.receipts import FOLDER, StoredReceipt, UnreadableReceipt, all_receipts, needed_by, readable_receipts
from rarkit.cache.record import NO_RECORD, SEALED_IN_PART, UNFINISHED, Record
from rarkit.cache.store import Store
from rarkit.cache.variants import telling_apart
from rarkit.cli.tables import print_entries, table_of
from rarkit.cli.units import size
from rarkit.errors import IncompleteError, StoreError
from rarkit.pipeline.kept_receipts import receipt_name
from rarkit.runtime.console import PrintableConsole
from rarkit.runtime.progress import Reporter

NEWER = "from a newer rarkit"
DAMAGED: Final = "damaged"
IN_PROGRESS: Final = "in progress"
Verdict = Literal["intact", "in progress", "unfinished", "damaged"]


def opened(store: str) -> Store:
    """The store at a URL. Raises StoreError if there is none."""
    place = Store(store)
    if not place.exists():
        raise StoreError(f"there is no store {store!r}. Name the store of your runs with --store.")
    return place


def outputs(store: str, names: list[str] | None) -> list[StageOutput]:
    """The outputs with these names; all outputs if no name is given.

    Raises:
        StoreError: there is no store, or a name matches no output.
    """
    stored = list(opened(store).outputs())
    if not names:
        return stored
    chosen: list[StageOutput] = []
    for name in names:
        stage, _, prefix = name.partition("/")
        matching = [output for output in stored if output.stage == stage and output.fingerprint.startswith(prefix)]
        if not matching:
            known = ", ".join(sorted({output.stage for output in stored})) or "nothing"
            raise StoreError(f"store {store!r} has no output {name!r}. It holds: {known}. See rarkit cache ls.")
        chosen += [output for output in matching if output not in chosen]
    return chosen


def receipt_named(store: Store, name: str) -> StoredReceipt | UnreadableReceipt:
    """The receipt of this name, or whose name begins so. Raises StoreError if there is none, or several."""
    matching = all_receipts(store, name)
    # The receipt of a run that has begun is named after the one of the same folder, with more behind it.
    matching = [receipt for receipt in matching if receipt.name == name] or matching
    if len(matching) != 1:
        raise StoreError(
            f"store {store.url!r} has {len(matching) or 'no'} receipts that begin with {name!r}: name a single one of those in its "
            f"folder {FOLDER}/."
        )
    return matching[0]


def outputs_as_json(store: str, outputs: list[StageOutput]) -> list[dict[str, Any]]:
    """Outputs as plain JSON data; what cannot be read from a record is None.

    ``runs`` are the folders of the runs that need an output, ``settings`` those in which the outputs of a stage differ.
    """
    needed, settings = needed_by(readable_receipts(Store(store))), telling_apart(outputs)
    rows = []
    for output in outputs:
        state, record = _state(output)
        row = {
            "stage": output.stage,
            "fingerprint": output.fingerprint,
            "complete": record is not None and record.complete,
            "state": state,
            "recipe": None if record is None else record.recipe_name,
            "overrides": None if record is None else record.overrides,
            "settings": settings[output],
            "runs": sorted({run_name(receipt) for receipt in needed.get((output.stage, output.fingerprint), [])}),
            "finished": None if record is None else record.finished,
            "bytes": output.bytes_used(),
            "path": output.path,
        }
        rows.append(row)
    return rows


def run_name(receipt: StoredReceipt | UnreadableReceipt) -> str:
    """The folder of a run, relative to the working directory if it is in it, after its host if that is another machine."""
    if isinstance(receipt, UnreadableReceipt):
        return f"an unknown run ({FOLDER}/{receipt.name}, which cannot be read)"
    if receipt.host != platform.node():
        return f"{receipt.host}:{receipt.folder}"
    here = Path.cwd()
    return str(receipt.folder.relative_to(here) if receipt.folder.is_relative_to(here) else receipt.folder)


def _state(output: StageOutput) -> tuple[str, Record | None]:
    """The state of an output in ``rarkit cache ls``, and its record; None if there is none that this rarkit can read."""
    if output.is_newer:
        return NEWER, None
    defect = output.defect() if output.exists() else NO_RECORD
    record = output.record_if_readable()
    if defect is None:
        return ("complete" if record is None or record.is_sealed else "complete, sealed in part"), record
    if output.writer() is not None:
        return IN_PROGRESS, record
    return ("unfinished" if defect == UNFINISHED else DAMAGED), record


def print_outputs(store: str, outputs: list[StageOutput]) -> None:
    """Prints a line for each output, and below it which runs need it and in which settings it differs from others of its stage."""
    if not outputs:
        PrintableConsole().print("The store is empty.")
        return
    entries = []
    for row in outputs_as_json(store, outputs):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["finished"])) if row["finished"] else ""
        below = [f"needed by {', '.join(row['runs']) or 'no run'}"]
        if row["settings"]:
            below.append(f"differs in {', '.join(f'{path} {shown(value)}' for path, value in row['settings'].items())}")
        entries.append(((row["stage"], row["fingerprint"][:SHORT], row["state"], size(row["bytes"]), when), below))
    print_entries(("stage", "fingerprint", "state", "size", "finished"), entries)


def print_unneeded(outputs: list[StageOutput]) -> None:
    """Prints what would be removed, with sizes."""
    table = table_of("stage", "fingerprint", "recipe", "size")
    for output in outputs:
        record = output.begun()
        made_by = " ".join([record.recipe_name or "", *(record.overrides or ())])
        table.add_row(output.stage, output.fingerprint[:SHORT], made_by, size(output.bytes_used()))
    PrintableConsole().print(table)


def runs_gone(stored: list[StoredReceipt]) -> dict[Path, list[StoredReceipt]]:
    """The receipts of this machine whose run has no folder any more, or only one that was made anew, by that folder."""
    gone: dict[Path, list[StoredReceipt]] = {}
    for receipt in stored:
        name = receipt_name(receipt.folder) if os.path.isdir(receipt.folder) else None
        if receipt.host == platform.node() and (name is None or not receipt.name.startswith(name)):
            gone.setdefault(receipt.folder, []).append(receipt)
    return gone


def verified(output: StageOutput) -> tuple[Verdict, str]:
    """Reads every byte of an output; returns its state, and what is to be said about it (nothing if it is intact)."""
    state, record = _state(output)
    if state == NEWER:
        return DAMAGED, "written by a newer rarkit: update rarkit to read it"
    try:
        blocks = sum(array.layout.blocks for array in record.arrays.values()) if record is not None else 0
        with Reporter().task(f"{output.stage}/{output.fingerprint[:SHORT]}", blocks, "chunks") as advance:
            defect = output.verify(advance)
    except IncompleteError as error:
        defect = str(error.__cause__ or error)
    if defect is None:
        return "intact", "" if record is None or record.is_sealed else SEALED_IN_PART
    if (writer := output.writer()) is not None:
        return IN_PROGRESS, f"{writer} is writing it"
    output.refresh()
    if _state(output)[1] != record:
        # Another run has written it anew meanwhile.
        return verified(output)
    if defect == UNFINISHED:
        return "unfinished", "a run that stopped left it; its recipe goes on from there"
    return DAMAGED, defect


def verified_as_json(output: StageOutput, state: Verdict, remark: str) -> dict[str, Any]:
    """What ``verified`` returned, as plain JSON data."""
    return {
        "stage": output.stage,
        "fingerprint": output.fingerprint,
        "state": state,
        "defect": remark if state == DAMAGED else None,
        "sealed_in_part": state == "intact" and remark == SEALED_IN_PART,
    }


def print_verified(rows: list[tuple[StageOutput, tuple[Verdict, str]]]) -> None:
    """Prints the state of each output, with the cure if it is damaged."""
    console = PrintableConsole()
    for output, (state, remark) in rows:
        cure = f" (run its recipe again with --force {output.stage}, or rarkit cache rm {output.stage}/{output.fingerprint})"
        told = f"{state}: {remark}{cure if state == DAMAGED else ''}" if remark else state
        console.print(f"{output.stage}/{output.fingerprint}: {told}", soft_wrap=True)
