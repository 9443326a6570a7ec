"""Parts that would end the process without a word, by ``sys.exit()``, say, or recursion without an end: errors that name them.

Imports nothing heavy, not even pydantic, because the command line imports it at start-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import TYPE_CHECKING

from rarkit.errors import PluginError
from rarkit.runtime.signals import Stopped, raised_by_handlers

if TYPE_CHECKING:
    from rarkit.registry.component import Component

LONGEST = 500
"""Characters of the message of somebody else's exception."""


def told(error: BaseException) -> str:
    """An exception of a plugin in one line, whatever its ``__str__`` does: ``"ValueError: boom"``."""
    try:
        message = " ".join(str(error).split())
    except BaseException as failure:
        message = f"its message raises {type(failure).__name__}"
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
    return f"{type(error).__name__}: {message}".removesuffix(": ").removesuffix(".")


@contextmanager
def exits_are_errors() -> Iterator[None]:
    """Around work in which parts run: what would end the process, or what the command line takes for an end, is an error.

    SIGINT and SIGTERM end it as ever; other exceptions pass.

    Raises:
        PluginError: a part raised such an exception; the message names the part and the place.
    """
    with raised_by_handlers() as stops:
        try:
            yield
        except BaseException as error:
            if isinstance(error, Stopped) or any(error is stop for stop in stops) or not _ends(error):
                raise
            fault = fault_of(error)
            if fault is None:
                raise
            raise PluginError(f"{fault}. Choose another part, or correct this one.") from error


def _ends(error: BaseException) -> bool:
    """Whether it ends the process, or the command line would take it for an end of its own, in silence or without a name."""
    is_of_the_command_line = type(error).__module__.partition(".")[0] in ("click", "typer")
    is_misread = isinstance(error, RecursionError | EOFError | BrokenPipeError)
    return not isinstance(error, Exception) or is_misread or is_of_the_command_line


def fault_of(error: BaseException) -> str | None:
    """Who raised it and where, in a clause; None if no part or plugin had to do with it."""
    from rarkit.registry.contract import named, plugins

    frames, of_plugins = list(walk_tb(error.__traceback__)), {**plugins(), "rarkit": ""}
    foreign = [(frame, line) for frame, line in frames if of_plugins.get(_top(frame)) or _part(frame)]
    if not foreign and not isinstance(error, SystemExit):
        return None
    frame, line = foreign[-1] if foreign else frames[-1]
    part = next(filter(None, (_part(frame) for frame, _ in reversed(frames))), None)
    who = named(part) if part else f"{frame.f_globals.get('__name__')} of {of_plugins.get(_top(frame)) or 'no plugin'}"
    does = "raised" if isinstance(error, Exception) else "would have ended the process:"
    return f"{who} {does} {told(error)} in {frame.f_code.co_name}, line {line} of {Path(frame.f_code.co_filename).name}"


def _top(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _part(frame: FrameType) -> type[Component] | None:
    """The class of the part whose method the frame is of, unless it is one of rarkit's own."""
    from rarkit.registry.component import Component

    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    cls = owner if isinstance(owner, type) else type(owner)
    return cls if Component in cls.__mro__ and cls.__module__.partition(".")[0] != "rarkit" else None
