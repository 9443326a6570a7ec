"""Links planted where rarkit writes."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
