"""What a plan compares with: the last run of the same recipe, whatever else ran on the store since."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any, final

from rarkit.cache.fingerprint import differences
from rarkit.cache.receipt_content import NeededOutput, Variant
from rarkit.cache.receipts import StoredReceipt, readable_receipts
from rarkit.cache.record import NAMES_SINCE
from rarkit.cache.store import Store
from rarkit.recipe.schema import Recipe


@final
class LastRun:
    """The runs on a store that a recipe is compared with, the closest first. Reads nothing until it is asked."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        self._recipe, self._store = recipe, store

    def why_new(self, stage: str, identity: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
        """Why a stage has no output under its fingerprint: what differs from the last run of the same recipe.

        That is the last one with the same overrides; if there is none, one without overrides, and then one with any. A recipe that
        has no file is known by its name.
        """
        for receipt in self._closest:
            last = next((ran for ran in receipt.content.stages if ran.name == stage), None)
            if last is not None and self._store.output(stage, last.fingerprint).exists():
                return _changes(last, identity, upstream)
        older = any(
            record.recipe_name == self._recipe.recipe_name and record.complete and record.format < NAMES_SINCE
            for record in self._store.records(stage)
        )
        return "the stored output is from an older rarkit" if older else "not in the store yet"

    @cached_property
    def _closest(self) -> list[StoredReceipt]:
        origin, changes = self._recipe.origin, tuple(self._recipe.origin.changes)
        ranked: list[tuple[int, str, StoredReceipt]] = []
        for receipt in readable_receipts(self._store):
            ran, runs = receipt.content.variant or Variant(), os.path.realpath(receipt.folder.parent)
            if ran.file != origin.seen_from(runs):
                continue
            if origin.file is None and receipt.content.recipe_name != self._recipe.recipe_name:
                continue
            closeness = 2 if ran.overrides == changes else 1 if not ran.overrides else 0
            ranked.append((closeness, receipt.content.when, receipt))
        return [receipt for *_, receipt in sorted(ranked, key=lambda entry: entry[:2], reverse=True)]


_CONTENT = re.compile(r"^(\w+)\.content\b.*", re.DOTALL)
"""Of a difference: the digest of what a part's settings refer to, which is no setting of a recipe."""


def _changes(last: NeededOutput, identity: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    changed = list(dict.fromkeys(_CONTENT.sub(r"the data of [\1]", change) for change in differences(last.identity, identity)))
    above = [name for name in upstream if last.upstream.get(name) != upstream[name]]
    reasons = [f"settings changed: {', '.join(changed)}"] if changed else []
    reasons += [f"upstream changed: {', '.join(above)}"] if above else []
    return "; ".join(reasons) or "not in the store yet"
