"""The command line: parse, call one function, print."""

from __future__ import annotations

from rarkit.cli.app import app, main

__all__ = ["app", "main"]
