"""Prints what ends a command besides its result (errors, signals, wrong arguments, bugs), and the warnings on the way."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, final

import typer

from rarkit.cli.encoding import echo
from rarkit.errors import RankError, RarkitError, RarkitWarning, sentences
from rarkit.printable import printable
from rarkit.registry.exits import fault_of
from rarkit.runtime.signals import Stopped

WrongArguments: type[Any] = typer.BadParameter.__mro__[2]
"""The base class of the errors of click, of which typer has a copy or not, as its version goes."""


def print_what_is_foreign_safely() -> None:
    """Makes warnings, logs of libraries and tracebacks printable: they quote what is foreign."""
    warnings.formatwarning = _format_warning
    sys.excepthook = print_traceback
    if logging.lastResort is not None:  # what prints the logs of libraries, since rarkit asks for none
        logging.lastResort.setFormatter(_LogLine())


@contextmanager
def reported() -> Iterator[None]:
    """Prints what ends the command inside, and exits: with 2 for an invalid request, 128 + its number for a signal, else 1."""
    try:
        yield
    except Stopped as stop:
        echo(str(stop), fg="yellow", err=True)
        sys.exit(stop.code)
    except RarkitError as error:
        if not (isinstance(error, RankError) and error.told):
            echo(f"error: {sentences(error)}", fg="red", err=True, lines=True)
        sys.exit(error.exit_code)
    except WrongArguments as error:
        _print_wrong_arguments(error)
        sys.exit(error.exit_code)
    except MemoryError as error:
        reason = f" ({error})" if str(error) else ""
        advice = "Free some, or check the files that are read: a damaged one may claim any amount."
        echo(f"error: there is not enough memory here{reason}. {advice}", fg="red", err=True)
        sys.exit(1)
    except typer.Abort:
        echo("Aborted.", fg="red", err=True)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


def _print_wrong_arguments(error: Any) -> None:
    message, context = error.format_message(), getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        # The message is the help, and empty where rich has printed that already.
        if message:
            echo(message, err=True, lines=True)
        return
    advice = [f"See {context.command_path} --help."] if context is not None else []
    echo(f"error: {sentences(message, *advice)}", fg="red", err=True)


_PYTHON_FORMAT = warnings.formatwarning


def _format_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None) -> str:
    """Formats rarkit's warnings without the line of code that issued them, and others as Python does."""
    if issubclass(category, RarkitWarning):
        return f"warning: {message}\n"
    return _PYTHON_FORMAT(printable(str(message)), category, printable(filename), lineno, line)


@final
class _LogLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints a traceback as Python does; the lines of the message itself are not ours, those of code above it are."""
    for piece in traceback.format_exception(kind, error, trace):
        is_code = piece[:1].isspace()
        echo(printable(piece.removesuffix("\n"), lines=is_code), err=True, lines=is_code)
    if (fault := fault_of(error)) is not None:
        echo(f"error: {fault}. Choose another part, or correct this one.", fg="red", err=True)
