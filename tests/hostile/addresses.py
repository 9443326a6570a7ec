"""Addresses in recipes and receipts."""

from __future__ import annotations

from tests.hostile.entry import Entry

ENTRIES: list[Entry] = []
