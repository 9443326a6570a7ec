"""Files that expand, claim or never end."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
