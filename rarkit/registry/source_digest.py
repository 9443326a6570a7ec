"""A digest of all that a class defined in Python is made of, rather than one that was installed.

Imports nothing heavy, not even pydantic.
"""

from __future__ import annotations

import builtins
import copyreg
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, CellType, FunctionType, ModuleType
from typing import Any, final

import numpy as np

from rarkit.errors import PluginError
from rarkit.registry.source_modules import absolute_name, is_installed, module_texts
from rarkit.registry.source_names import attributes_of, imports_of, names_of
from rarkit.registry.source_text import CURE, functions_of, is_generated, text_of

PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented))
"""Values that ``repr`` writes in full."""


def source_digest(cls: type) -> str:
    """The SHA-256 of a class's source text and of what that uses and nobody installed: bases, functions, values, modules.

    Values are those of now. What was installed is left out: for that, versions vouch.

    Raises:
        PluginError: something of it has no source, or is a value that cannot be told from others.
    """
    collected = _Collected()
    collected.add(cls, cls.__qualname__)
    return hashlib.sha256("\0".join(collected.pieces).encode()).hexdigest()


@final
class _Collected:
    """The pieces of text that say what a class is made of."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._seen: set[int] = set()
        """The code that is in the pieces."""
        self._within: list[Any] = []
        """The values whose pieces are being collected, from the outermost."""

    def add(self, value: Any, where: str) -> None:
        """Appends what a value is made of; ``where`` is for messages."""
        value = inspect.unwrap(value) if hasattr(value, "__wrapped__") else value
        if isinstance(value, ModuleType):
            self._add_module(value.__name__, value, where)
        elif isinstance(value, type | FunctionType | BuiltinFunctionType):
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._add_code(value, where)
        elif type(value) in PLAIN or isinstance(value, np.generic):
            self.pieces.append(f"{type(value).__qualname__} {value!r}")
        elif any(value is one for one in self._within):
            self.pieces.append("itself")
        else:
            self._within.append(value)
            self._add_value(value, where)
            self._within.pop()

    def _add_module(self, name: str, module: ModuleType | None, where: str) -> None:
        if is_installed(name):
            self.pieces.append(name)
            return
        for part, text in module_texts(name, module, where):
            self.pieces += [part, text]

    def _add_code(self, value: type | FunctionType | BuiltinFunctionType, where: str) -> None:
        module = getattr(value, "__module__", None) or "builtins"
        if is_installed(module) or isinstance(value, BuiltinFunctionType):
            self.pieces.append(f"{module}:{value.__qualname__}")
            return
        text, outside = text_of(value), _outside(value)
        self.pieces.append(text)
        for name in sorted(names_of(text) & outside.keys()):
            self.pieces.append(name)
            self.add(outside[name], f"{name}, which {where} uses,")
        for chain in attributes_of(text):
            self._add_attributes(outside.get(chain[0]), chain, where)
        for name in imports_of(text):
            resolved = absolute_name(name, str(outside.get("__package__") or ""))
            self._add_module(resolved, sys.modules.get(resolved), where)
        for inner in _inside(value):
            self.add(inner, where)

    def _add_attributes(self, value: Any, chain: tuple[str, ...], where: str) -> None:
        """The attributes that are taken of a module: its text does not say what it was given since."""
        for name in chain[1:]:
            if not isinstance(value, ModuleType) or is_installed(value.__name__) or name not in vars(value):
                return
            value = vars(value)[name]
            self.pieces.append(name)
            self.add(value, f"{'.'.join(chain)}, which {where} uses,")

    def _add_value(self, value: Any, where: str) -> None:
        if isinstance(value, list | tuple | dict | set | frozenset):
            self.pieces.append(f"{type(value).__name__} of {len(value)}")
            self.add(type(value), where)
            # Sets in an order that is the same in every process.
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            for item in items.items() if isinstance(items, dict) else items:
                self.add(item, where)
        elif hasattr(value, "identity") and hasattr(value, "model_dump"):
            self.pieces.append(json.dumps(value.identity(), sort_keys=True))
        elif (array := _array(value)) is None:
            self._add_object(value, where)
        elif array.dtype.hasobject:
            self.pieces.append(f"{array.shape}")
            self.add(array.tolist(), where)
        else:
            self.pieces.append(f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}")

    def _add_object(self, value: Any, where: str) -> None:
        """What an object would be pickled as: a ``repr`` may leave out, or shorten, what makes a difference."""
        self.add(type(value), where)
        text = repr(value)
        fault = f"{where} is {text}, which cannot be told from others of its kind. {CURE}."
        if " at 0x" in text:
            raise PluginError(fault)
        reduced = copyreg.dispatch_table.get(type(value))
        try:
            state = reduced(value) if reduced else value.__reduce_ex__(4)
        except Exception as error:
            raise PluginError(fault) from error
        make, *rest = (state,) if isinstance(state, str) else state
        self.add(make, where)
        for item in rest[:2]:
            self.add(item, where)
        for items in rest[2:4]:
            self.add(None if items is None else list(items), where)


def _array(value: Any) -> Any:
    """An array, or the bytes of a tensor; None for what is neither."""
    if hasattr(value, "untyped_storage"):
        flat = value.detach().cpu().contiguous().flatten()
        content = flat.view(sys.modules["torch"].uint8).numpy().tobytes()
        return np.frombuffer(f"{value.dtype} {tuple(value.shape)} ".encode() + content, np.uint8)
    return np.asarray(value) if hasattr(value, "__array__") else None


def _inside(thing: type | FunctionType) -> list[Any]:
    """What a class or function holds besides its text: bases, defaults of settings and class variables; of arguments."""
    if isinstance(thing, FunctionType):
        return [thing.__defaults__, thing.__kwdefaults__]
    settings = getattr(thing, "__pydantic_fields__", {}).values()
    defaults = [field.get_default(call_default_factory=True) for field in settings if not field.is_required()]
    variables = [vars(thing).get(name) for name in sorted(getattr(thing, "__class_vars__", ()))]
    # The text has what methods are made of.
    methods = property, classmethod, staticmethod, FunctionType
    given = [value for name, value in sorted(vars(thing).items()) if _was_given(thing, value)]
    return [*thing.__bases__, *defaults, *(value for value in variables if not isinstance(value, methods)), *given]


def _was_given(cls: type, value: Any) -> bool:
    """Whether something callable stands in a class that its own text does not define, as after ``cls.order = other``."""
    function = inspect.unwrap(value) if isinstance(value, FunctionType) else None
    return function is not None and not is_generated(cls, function) and not function.__qualname__.startswith(f"{cls.__qualname__}.")


def _outside(thing: type | FunctionType) -> Mapping[str, Any]:
    """The variables around a class or function, by name."""
    functions = list(functions_of(thing)) if isinstance(thing, type) else [thing]
    scopes = [function.__globals__ for function in functions] or [vars(sys.modules.get(thing.__module__, builtins))]
    outside = dict(scopes[0])
    for function in functions:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__" and cell != CellType():
                outside[name] = cell.cell_contents
    return outside
