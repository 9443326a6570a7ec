"""Plugins that end the process, or print."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
