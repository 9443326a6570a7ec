"""Receipts in the store, ``<store>/receipts/*.json``: which outputs the runs on it need, whichever project they belong to."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from rarkit.cache.output import StageOutput
from rarkit.cache.receipt_content import FORMAT, LARGEST, Receipt
from rarkit.cache.store import Store
from rarkit.errors import StoreError
from rarkit.files.locations import reaching
from rarkit.files.own_folder import OwnFolder
from rarkit.files.regular import read_regular
from rarkit.files.stored_json import read_json

FOLDER = "receipts"


@final
@dataclass(frozen=True)
class StoredReceipt:
    """A receipt in the store: of a finished run, or of one that has begun."""

    name: str
    content: Receipt
    folder: Path
    """The folder of the run on the machine that wrote it."""
    host: str
    outputs: frozenset[tuple[str, str]]
    """Stage and fingerprint of each output that the run needs."""


@final
@dataclass(frozen=True)
class UnreadableReceipt:
    """What lies in the place of a receipt in the store, and is damaged, of a newer rarkit, or cannot be read."""

    name: str
    reason: StoreError


def write_receipt(store: Store, name: str, content: Mapping[str, Any]) -> None:
    """Writes a receipt, whole or not at all. Raises StoreError if the store cannot be written."""
    path, data = _path(store, name), json.dumps(content, indent=2) + "\n"
    with _reaching(store):
        store.filesystem.makedirs(f"{store.root}/{FOLDER}", exist_ok=True)
        store.filesystem.pipe_file(path, data.encode())


def remove_receipt(store: Store, name: str) -> None:
    """Removes a receipt, if it is there. Raises StoreError if the store cannot be written."""
    # Not asked for before: a link that leads to nothing is there, too.
    path = _path(store, name)
    with reaching(path, "Remove it by hand.", raising=StoreError), suppress(FileNotFoundError):
        store.filesystem.rm_file(path)


def has_receipt(store: Store, name: str) -> bool:
    """Whether the store has a receipt of this name."""
    with _reaching(store):
        return bool(store.filesystem.exists(_path(store, name)))


def receipts(store: Store) -> list[StoredReceipt]:
    """All receipts in the store, by name.

    Raises:
        StoreError: the store cannot be reached, or a receipt is damaged or of a newer rarkit, so that it is unknown what it needs.
    """
    read = []
    for receipt in all_receipts(store):
        if isinstance(receipt, UnreadableReceipt):
            raise receipt.reason
        read.append(receipt)
    return read


def readable_receipts(store: Store, beginning: str = "") -> list[StoredReceipt]:
    """The receipts in the store whose name begins so, but for those that are damaged or of a newer rarkit.

    Raises StoreError if the store cannot be reached.
    """
    return [receipt for receipt in all_receipts(store, beginning) if isinstance(receipt, StoredReceipt)]


def all_receipts(store: Store, beginning: str = "") -> list[StoredReceipt | UnreadableReceipt]:
    """The receipts in the store whose name begins so, and what lies in the place of one. Raises StoreError as ``receipts``."""
    with _reaching(store):
        while True:
            try:
                entries = store.filesystem.ls(f"{store.root}/{FOLDER}", detail=False)
            except FileNotFoundError:
                return []
            paths = sorted(path for path in entries if path.endswith(".json") and path.rsplit("/", 1)[-1].startswith(beginning))
            texts = _texts(store, paths)
            # A run that ends replaces one receipt by another: that one is not among those listed.
            if any(isinstance(text, FileNotFoundError) for text in texts.values()):
                continue
            return [_parsed(path, texts[path]) for path in sorted(texts)]


def _texts(store: Store, paths: list[str]) -> dict[str, bytes | Exception]:
    """The bytes of each file, or why they cannot be had."""
    if not isinstance(store.filesystem, OwnFolder):
        # Unlike ``cat``, this takes no name for a pattern.
        return dict(zip(paths, store.filesystem.cat_ranges(paths, None, None, on_error="return"), strict=True)) if paths else {}
    texts: dict[str, bytes | Exception] = {}
    for path in paths:
        try:
            texts[path] = read_regular(path, LARGEST, raising=StoreError)
        except StoreError as error:
            texts[path] = error
        except OSError as error:
            # Gone since it was listed; a link that leads to nothing stays.
            is_gone = isinstance(error, FileNotFoundError) and not os.path.lexists(path)
            texts[path] = error if is_gone else StoreError(f"{path} cannot be read ({error.strerror}).")
    return texts


def needed_by(stored: list[StoredReceipt]) -> dict[tuple[str, str], list[StoredReceipt]]:
    """The receipts that need an output, by stage and fingerprint of the output."""
    needed: dict[tuple[str, str], list[StoredReceipt]] = defaultdict(list)
    for receipt in stored:
        for output in receipt.outputs:
            needed[output].append(receipt)
    return dict(needed)


def unneeded(store: Store) -> list[StageOutput]:
    """The outputs that no receipt needs. Those of a rarkit that kept no receipts in the store are not among them.

    Raises:
        StoreError: as ``receipts``.
    """
    # A run leaves its receipt before it begins an output, so receipts that are read last cover all outputs that are listed.
    outputs = list(store.outputs())
    needed = needed_by(receipts(store))
    return [output for output in outputs if (output.stage, output.fingerprint) not in needed and _leaves_receipts(output)]


def _leaves_receipts(output: StageOutput) -> bool:
    try:
        record = output.record()
    except StoreError:
        # Damaged, or of a newer rarkit: what is in it cannot be told.
        return False
    return record is not None and record.overrides is not None


def _parsed(path: str, text: bytes | Exception) -> StoredReceipt | UnreadableReceipt:
    """The receipt, or what is wrong with it. Raises what is wrong with the store."""
    name = path.rsplit("/", 1)[-1].removesuffix(".json")
    cure = f"rarkit cache rm {FOLDER}/{name} removes it, and lets go of what only its run needs."
    if isinstance(text, StoreError):
        return UnreadableReceipt(name, StoreError(f"the receipt {text} {cure}"))
    if isinstance(text, Exception):
        raise text
    try:
        content = read_json(Receipt, text, f"the receipt {path}", cure, most=LARGEST, newest=FORMAT)
    except StoreError as error:
        return UnreadableReceipt(name, error)
    if content.folder is None or content.host is None:
        return UnreadableReceipt(name, StoreError(f"the receipt {path} is damaged (it names no folder and host). {cure}"))
    outputs = frozenset((stage.name, stage.fingerprint) for stage in content.stages)
    return StoredReceipt(name, content, Path(content.folder), content.host, outputs)


def _path(store: Store, name: str) -> str:
    return f"{store.root}/{FOLDER}/{name}.json"


def _reaching(store: Store) -> Any:
    return reaching(store.url, "Check the store's address, permissions and free space.", raising=StoreError)
