"""Names and titles that steer terminals."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
