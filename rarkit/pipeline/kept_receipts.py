"""The receipts of a run in the store: one when it begins, replaced by another when it is finished."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarkit.cache.holder import Holder
from rarkit.cache.receipt_content import FORMAT
from rarkit.cache.receipts import StoredReceipt, readable_receipts, remove_receipt, write_receipt
from rarkit.cache.run_folders import RECEIPT
from rarkit.cache.store import Store
from rarkit.errors import RarkitWarning, StoreError
from rarkit.files.atomic import write_once, write_text
from rarkit.files.regular import read_regular
from rarkit.pipeline.plan import Plan
from rarkit.pipeline.run_folder import variant, writing_results
from rarkit.recipe.schema import Recipe

NUMBER = ".rarkit-runs"
"""The file in the folder of runs that tells it from others under the same path, in other containers."""
LONGEST_NUMBER = 1000
"""Bytes of it. It goes into a hash, whatever it is."""
BEGUN = "-begun-"
"""In the name of the receipt of a run that has begun, before a random number: several runs may write to a folder."""
_UNDER_WAY: set[str] = set()
"""The receipts of the runs that are going on in this process."""


def receipt_name(folder: Path) -> str | None:
    """The name in the store of the receipts of a run: one for each folder; None if no run has left a receipt of it.

    Host and path do not tell two containers apart, so the folder of runs has a random number of its own, in a file. A container
    that starts again with the same folder finds it there, under whatever host name. A copy of the folder has another inode.
    """
    runs = folder.parent
    try:
        number = read_regular(runs / NUMBER, LONGEST_NUMBER, raising=StoreError).decode("utf-8", "replace")
        inode = runs.stat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{runs / NUMBER} cannot be read: {error.strerror or error}. Check that you may read it.") from error
    return hashlib.sha256(f"{number}\0{inode}\0{os.path.abspath(folder)}".encode()).hexdigest()[:20]


def _own_name(folder: Path) -> str:
    """``receipt_name``, after giving the folder of runs its number if it has none."""
    with writing_results(folder.parent):
        write_once(folder.parent / NUMBER, secrets.token_hex(16))
        name = receipt_name(folder)
    assert name is not None, "the folder of runs has a number"
    return name


def about_run(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """What every receipt says of its run."""
    return {
        "format": FORMAT,
        "recipe_name": recipe.recipe_name,
        "variant": variant(recipe, folder.parent),
        "folder": os.path.abspath(folder),
        "host": platform.node(),
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def begin(plan: Plan, folder: Path) -> str:
    """Leaves a receipt of a run that begins in the store, so that nobody removes what the run reads or writes.

    Returns:
        Its name, for ``ended`` and ``keep``.
    """
    stages = [
        {
            "name": stage.name,
            "fingerprint": stage.output.fingerprint,
            "identity": stage.identity,
            "upstream": dict(stage.upstream),
        }
        for stage in plan.stages
    ]
    token = secrets.token_hex(4)
    name = f"{_own_name(folder)}{BEGUN}{token}"
    content = {**about_run(plan.recipe, folder), "process": Holder.this_process(token).as_json(), "stages": stages}
    _UNDER_WAY.add(name)
    write_receipt(plan.store, name, content)
    return name


def ended(begun: str | None) -> None:
    """Notes that the run that began with this receipt has ended, so that ``keep`` of the next one into the folder removes it."""
    _UNDER_WAY.discard(begun or "")


def _goes_on(receipt: StoredReceipt, store: Store) -> bool:
    """Whether the run that left a receipt when it began is going on."""
    if receipt.name in _UNDER_WAY:
        return True
    if receipt.content.process is None:
        return False
    holder = Holder.stored(receipt.content.process)
    runs = holder.runs_here()
    if runs and holder.pid == os.getpid():
        return False
    # Of a process in another container or on another machine, this is known: a run writes outputs nearly all the time.
    return any(store.output(*output).writer() for output in receipt.outputs) if runs is None else runs


def keep(receipt: Mapping[str, Any], store: Store, folder: Path, *, begun: str | None, wrote: bool) -> None:
    """Writes the receipt of a finished run to the store and to the folder of the run.

    It replaces those of runs into the same folder that began, and end with this one or have ended before they were finished.

    Args:
        receipt: plain JSON data.
        store, folder: where to.
        begun: the name of the receipt that the run left when it began; None if it left none.
        wrote: whether the run wrote outputs. One that did not may use a store that it may only read: then it warns.

    Raises:
        StoreError: the store cannot be written.
    """
    name = _own_name(folder)
    try:
        write_receipt(store, name, receipt)
        for other in readable_receipts(store, f"{name}{BEGUN}"):
            if other.name != begun and not _goes_on(other, store):
                remove_receipt(store, other.name)
        if begun is not None:
            remove_receipt(store, begun)
    except StoreError as error:
        if wrote:
            raise
        warnings.warn(
            f"the store has no receipt of this run, so rarkit cache gc does not spare its outputs: {error}",
            RarkitWarning,
            stacklevel=2,
        )
    write_text(folder / RECEIPT, json.dumps(receipt, indent=2) + "\n")
