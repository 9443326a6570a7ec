"""The source of classes that were defined in Python rather than installed: its text, and a digest of all that it is made of.

Imports nothing heavy, not even pydantic.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import json
import linecache
import symtable
import sys
import textwrap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from rarkit.errors import PluginError

CURE = "Define it in a file or a notebook cell, and use only functions, classes and plain values from outside it"
_texts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""The text of classes and functions as it was when it was first asked for: a file may be edited afterwards."""


def source_digest(cls: type) -> str:
    """The SHA-256 of a class's source text and of what that uses and nobody installed: bases, functions, values, modules.

    Values are those of now. What was installed is left out: for that, versions vouch.

    Raises:
        PluginError: something of it has no source, or is a value that cannot be told from others.
    """
    pieces: list[str] = []
    _collect(cls, pieces, set(), cls.__qualname__)
    return hashlib.sha256("\0".join(pieces).encode()).hexdigest()


def text_of(thing: type | FunctionType) -> str:
    """The source text of a class or function, without the indentation that all of it shares.

    Raises:
        PluginError: there is none, as of what was typed at a prompt or passed to ``exec``.
    """
    if thing not in _texts:
        try:
            text = _class_text(thing) if isinstance(thing, type) else inspect.getsource(thing)
            _texts[thing] = textwrap.dedent(text)
        except (OSError, TypeError, SyntaxError) as error:
            raise PluginError(
                f"there is no source text of {thing.__module__}.{thing.__qualname__}, so that its results could not be told "
                f"from those of another version of it. {CURE}."
            ) from error
    return _texts[thing]


def file_of(cls: type) -> str | None:
    """The file, or the name of the notebook cell, that a class was defined in; None if no method of its own tells."""
    return next((function.__code__.co_filename for function in _functions(cls)), None)


def is_installed(module: str) -> bool:
    """Whether a module came with Python, with rarkit or with an installed distribution, so that a version vouches for it."""
    top = module.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return False
    if top == "rarkit" or top in sys.stdlib_module_names:
        return True
    package = sys.modules.get(top)
    file = getattr(package, "__file__", None) or next(iter(getattr(package, "__path__", ())), "")
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _functions(cls: type) -> Iterator[FunctionType]:
    """The functions that the body of a class defines, without what decorators put around them."""
    for value in vars(cls).values():
        for name in ("__func__", "fget", "func", "wrapped"):
            value = getattr(value, name, value) if not isinstance(value, FunctionType | type) else value
        function = inspect.unwrap(value) if callable(value) else value
        if isinstance(function, FunctionType) and function.__qualname__.startswith(f"{cls.__qualname__}."):
            yield function


def _class_text(cls: type) -> str:
    """``inspect.getsource`` does not find classes of notebooks, which have no file: their methods know where they are."""
    function = next(_functions(cls), None)
    if function is None:
        return _text_without_methods(cls)
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    linecache.checkcache(file)
    for text, node in _classes(linecache.getlines(file, function.__globals__), cls.__name__):
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
            if texts := [text for text, _ in _classes(lines, cls.__name__)]:
                return texts[-1]
        raise


def _classes(lines: list[str], name: str) -> Iterator[tuple[str, ast.ClassDef]]:
    """The classes of a name, each with its text; decorators are part of it. The innermost come first."""
    tree = ast.parse("".join(lines))
    for node in reversed(list(ast.walk(tree))):
        if isinstance(node, ast.ClassDef) and node.name == name:
            start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield "".join(lines[start - 1 : node.end_lineno]), node


def _collect(value: Any, pieces: list[str], seen: set[int], where: str) -> None:
    """Appends what a value is made of."""
    value = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
    is_code = isinstance(value, type | FunctionType | ModuleType | BuiltinFunctionType)
    if is_code and id(value) in seen:
        return
    seen.add(id(value))
    module = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or "builtins"
    if is_code and is_installed(module):
        pieces.append(f"{module}:{getattr(value, '__qualname__', '')}")
    elif isinstance(value, ModuleType):
        try:
            pieces.append(inspect.getsource(value))
        except (OSError, TypeError) as error:
            raise PluginError(f"{where} has no source text. {CURE}.") from error
    elif isinstance(value, type | FunctionType):
        text, outside = text_of(value), _outside(value)
        pieces.append(text)
        for name in sorted(_names(text) & outside.keys()):
            pieces.append(name)
            _collect(outside[name], pieces, seen, f"{name}, which {where} uses,")
        for inner in _inside(value):
            _collect(inner, pieces, seen, where)
    elif isinstance(value, list | tuple | dict | set | frozenset):
        _collect_each(value, pieces, seen, where)
    else:
        pieces.append(_written(value, pieces, seen, where))


def _collect_each(values: Any, pieces: list[str], seen: set[int], where: str) -> None:
    pieces.append(f"{type(values).__name__} of {len(values)}")
    if isinstance(values, set | frozenset):
        # In an order that is the same in every process.
        values = sorted(values, key=repr)
    for item in values.items() if isinstance(values, dict) else values:
        _collect(item, pieces, seen, where)


def _written(value: Any, pieces: list[str], seen: set[int], where: str) -> str:
    """A single value as text that tells it from others."""
    if hasattr(value, "identity") and hasattr(value, "model_dump"):
        return json.dumps(value.identity(), sort_keys=True)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype != object:
            return f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
    _collect(type(value), pieces, seen, where)
    text = repr(value)
    if " at 0x" in text:
        raise PluginError(f"{where} is {text}, which cannot be told from others of its kind. {CURE}.")
    return text


def _inside(thing: type | FunctionType) -> list[Any]:
    """What a class or function holds besides its text: bases, defaults of settings and class variables; of arguments."""
    if isinstance(thing, FunctionType):
        return [thing.__defaults__, thing.__kwdefaults__]
    settings = getattr(thing, "__pydantic_fields__", {}).values()
    defaults = [field.get_default(call_default_factory=True) for field in settings if not field.is_required()]
    variables = [vars(thing).get(name) for name in sorted(getattr(thing, "__class_vars__", ()))]
    # The text has what methods are made of.
    methods = property, classmethod, staticmethod, FunctionType
    return [*thing.__bases__, *defaults, *(value for value in variables if not isinstance(value, methods))]


def _outside(thing: type | FunctionType) -> Mapping[str, Any]:
    """The variables around a class or function, by name."""
    functions = list(_functions(thing)) if isinstance(thing, type) else [thing]
    scopes = [function.__globals__ for function in functions] or [vars(sys.modules.get(thing.__module__, builtins))]
    outside = dict(scopes[0])
    for function in functions:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and cell != CellType():
                outside[name] = cell.cell_contents
    return outside


@lru_cache(maxsize=256)
def _names(text: str) -> frozenset[str]:
    """The names in a text that stand for something outside it."""
    try:
        tables = [symtable.symtable(text, "source", "exec")]
    except IndentationError:
        # A line inside a string starts further left than the code.
        tables = [symtable.symtable(f"if True:\n{text}", "source", "exec")]
    names = set()
    for table in tables:
        tables += table.get_children()
        is_module = table.get_type() == "module"
        names |= {
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced() and (is_module or symbol.is_global())
        }
    return frozenset(names)
