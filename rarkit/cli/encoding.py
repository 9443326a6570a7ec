"""Output in encodings that lack some characters (ASCII, Latin-1, code pages): they are replaced, and never an error."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

import typer

LOOKALIKES = {
    "→": "->",
    "…": "...",
    "×": "x",
    "·": ".",
    "–": "-",
    "—": "-",
    "−": "-",
    "✓": "v",
    "✗": "x",
    "±": "+-",
    "≥": ">=",
    "≤": "<=",
}
"""What stands for the characters of rarkit's own messages."""


def replace_what_cannot_be_printed() -> None:
    """Makes stdout and stderr replace the characters that their encoding lacks."""
    codecs.register_error("rarkit", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="rarkit")


def echo(text: object, *, err: bool = False, nl: bool = True, fg: str | None = None) -> None:
    """Prints a line on stdout or stderr, like ``typer.secho``, which would write UTF-8 to streams of ASCII."""
    typer.secho(text, file=sys.stderr if err else sys.stdout, nl=nl, fg=fg)


def can_print(text: str) -> bool:
    """Whether stdout's encoding has all characters of the text."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable_toml(text: str) -> str:
    """TOML whose strings escape the characters that stdout's encoding lacks."""
    if can_print(text):
        return text
    return "".join(character if can_print(character) else f"\\U{ord(character):08X}" for character in text)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError), error
    return "".join(_lookalike(character) for character in error.object[error.start : error.end]), error.end


def _lookalike(character: str) -> str:
    """ASCII that looks like the character: a letter without its accents, say; a question mark if there is none."""
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return LOOKALIKES.get(character) or plain or "?"
