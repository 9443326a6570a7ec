"""Values of a recipe in messages: short, whatever they are."""

from __future__ import annotations

from reprlib import Repr
from typing import Any

LONGEST = 80
"""Characters of a value that messages quote."""
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = LONGEST
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 2, 6, 6, 3
_WIDEST = 128
"""Bits of a whole number that is written out: Python refuses to write very large ones."""


def shown(value: Any) -> str:
    """A value as Python writes it, with ``...`` for the middle of what is long."""
    if isinstance(value, int) and value.bit_length() > _WIDEST:
        return f"a whole number of {value.bit_length():,} bits"
    try:
        return _SHORT.repr(value)
    except ValueError:  # a very large number inside
        return f"a {type(value).__name__} with very large numbers"


def shortened(text: str) -> str:
    """A text with ``...`` for what is beyond ``LONGEST`` characters."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
