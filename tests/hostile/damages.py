"""Finished stores, damaged."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
