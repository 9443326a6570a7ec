"""Records, receipts, locks and the like with content of a stranger's."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
