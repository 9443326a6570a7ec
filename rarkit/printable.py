"""Makes text of strangers fit to be shown: what would steer a terminal, end a line or turn text around becomes an escape."""

from __future__ import annotations

import re

_STEERING = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_A_LINE = re.compile(rf"[\x00-\x1f{_STEERING}]")
_IN_LINES = re.compile(rf"[\x00-\x08\x0b-\x1f{_STEERING}]")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with escapes such as ``\x1b`` and ``\u202e``, as Python writes them, for what a reader could not see.

    These are control characters (C0, DEL, C1), marks and overrides of the direction of text, separators of lines, and halves of
    surrogate pairs, which stand for bytes of file names that are no text. All else is kept, so nothing that can be seen is lost.

    Args:
        text: somebody's text, or a message with it inside.
        lines: keep line feeds and tabs, in text whose lines are our own.
    """
    if text.isprintable():  # Python's notion is stricter, and this is the quick way for nearly all
        return text
    return (_IN_LINES if lines else _IN_A_LINE).sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def printable_strings(text: str) -> str:
    r"""JSON or TOML whose strings and keys write such characters as ``\u202e``: other text, the same data."""
    return _IN_LINES.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
