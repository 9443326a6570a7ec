"""The source text of classes and functions that were defined in Python rather than installed.

Imports nothing heavy, not even pydantic.
"""

from __future__ import annotations

import dataclasses
import inspect
import linecache
import textwrap
from collections.abc import Iterator
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from rarkit.errors import PluginError
from rarkit.registry.source_names import classes_in, lambdas_at

CURE = "Define it in a file or a notebook cell, and use only functions, classes and plain values from outside it"
_texts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""The text of classes and functions as it was when it was first asked for: a file may be edited afterwards."""


def text_of(thing: type | FunctionType) -> str:
    """The source text of a class or function, without the indentation that all of it shares.

    Raises:
        PluginError: there is none, as of what was typed at a prompt or passed to ``exec``.
    """
    if thing not in _texts:
        try:
            text = _class_text(thing) if isinstance(thing, type) else _function_text(thing)
            _texts[thing] = textwrap.dedent(text)
        except (OSError, TypeError, SyntaxError) as error:
            raise PluginError(
                f"there is no source text of {thing.__module__}.{thing.__qualname__}, so that its results could not be told "
                f"from those of another version of it. {CURE}."
            ) from error
    return _texts[thing]


def file_of(cls: type) -> str | None:
    """The file, or the name of the notebook cell, that a class was defined in; None if no method of its own tells."""
    return next((function.__code__.co_filename for function in functions_of(cls)), None)


def functions_of(cls: type) -> Iterator[FunctionType]:
    """The functions that the body of a class defines, without what decorators put around them."""
    for value in vars(cls).values():
        for name in ("__func__", "fget", "func", "wrapped"):
            value = getattr(value, name, value) if not isinstance(value, FunctionType | type) else value
        function = inspect.unwrap(value) if callable(value) else value
        if not isinstance(function, FunctionType) or is_generated(cls, function):
            continue
        if function.__qualname__.startswith(f"{cls.__qualname__}."):
            yield function


def is_generated(cls: type, function: FunctionType) -> bool:
    """Whether ``dataclass`` made a function of a class, out of its fields."""
    return dataclasses.is_dataclass(cls) and function.__code__.co_filename == "<string>"


def _function_text(function: FunctionType) -> str:
    if function.__name__ != "<lambda>":
        return inspect.getsource(function)
    lines = inspect.findsource(function)[0]
    return lambdas_at(lines, function.__code__.co_firstlineno)


def _class_text(cls: type) -> str:
    """``inspect.getsource`` does not find classes of notebooks, which have no file: their methods know where they are."""
    if issubclass(cls, tuple) and hasattr(cls, "_field_defaults") and cls.__bases__ == (tuple,):
        # Of a named tuple no text remains, and its methods are generated.
        return repr((cls.__qualname__, cls._fields, cls._field_defaults))  # type: ignore[attr-defined]
    function = next(functions_of(cls), None)
    if function is None:
        return _text_without_methods(cls)
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    linecache.checkcache(file)
    for text, node in classes_in(linecache.getlines(file, function.__globals__), cls.__name__):
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            return text
    raise OSError(f"{file} has no class {cls.__name__} at line {line}")


def _text_without_methods(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):
        # A notebook's cells are not files; of the cells that define the class, the latest is the one that was run last.
        cells = [lines for _, mtime, lines, _ in (entry for entry in linecache.cache.values() if len(entry) == 4) if mtime is None]
        for lines in reversed(cells):
            if texts := [text for text, _ in classes_in(lines, cls.__name__)]:
                return texts[-1]
        raise
