"""The command line. Each command parses its arguments, calls one function and prints the result."""

from __future__ import annotations

from rarkit.cli.app import app, main

__all__ = ["app", "main"]
