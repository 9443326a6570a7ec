"""Lines on stdout and stderr: what would steer a terminal is shown as escapes, and what an encoding lacks is replaced."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from contextlib import redirect_stdout

import typer

from rarkit.printable import printable
from rarkit.runtime.output import results

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


def echo(text: object, *, err: bool = False, nl: bool = True, fg: str | None = None, lines: bool = False) -> None:
    """Prints a line, or several whose ends are our own (``lines``), on stdout or stderr.

    ``typer.secho`` by itself would write UTF-8 to streams of ASCII, and whatever control characters there are.
    """
    typer.secho(printable(str(text), lines=lines), file=sys.stderr if err else results(), nl=nl, fg=fg)


def confirm(question: str) -> bool:
    """Asks at the terminal for a yes or no."""
    with redirect_stdout(results()):
        return typer.confirm(printable(question))


def can_print(text: str) -> bool:
    """Whether stdout's encoding has all characters of the text."""
    try:
        text.encode(getattr(results(), "encoding", None) or "utf-8")
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
