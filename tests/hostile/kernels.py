"""Compiled code planted in caches."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
