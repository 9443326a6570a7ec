"""``rarkit.register``: parts without a package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, overload

from rarkit.errors import PluginError
from rarkit.registry.component import Component
from rarkit.registry.contract import named
from rarkit.registry.kinds import KINDS
from rarkit.registry.loader import check_class, installed
from rarkit.registry.registered import add, registered

Part = TypeVar("Part", bound=type[Component])


@overload
def register(cls: Part, /, *, replace: bool = False) -> Part: ...
@overload
def register(cls: None = None, /, *, replace: bool = False) -> Callable[[Part], Part]: ...
def register(cls: Any = None, /, *, replace: bool = False) -> Any:
    """Makes a part that is defined in Python known to this process: recipes, plans, runs and ``rarkit.parts()`` have it by name.

    Call it with the class, or write ``@rarkit.register`` above it. It replaces a class of the same module and name registered
    before, as if a notebook's cell is run again. The source of the class is part of fingerprints, with the functions, classes and
    values that it uses and that no distribution installed: results of another version of it are not taken for its own.

    Each process registers its own parts: under ``torchrun``, all ranks run the script that does. For ``rarkit`` on the command
    line, parts are installed, as plugins.

    Args:
        cls: a class derived from the base of a kind, ``rarkit.ScanOrder``, say.
        replace: also take the place of another part of this name: of an installed one, or of another class.

    Returns:
        The class.

    Raises:
        PluginError: it is no part, has no source text, or another part has its name and ``replace`` is false.
    """
    if cls is None:
        return partial(register, replace=replace)
    if not isinstance(cls, type) or not issubclass(cls, Component) or getattr(cls, "kind", None) not in KINDS:
        bases = ", ".join(f"rarkit.{kind.public[0]}" for kind in KINDS.values())
        raise PluginError(f"rarkit.register takes a class derived from one of {bases}, not {cls!r}.")
    check_class(cls)
    there = _of_its_name(cls)
    if there is cls and registered(cls.kind, cls.part_name()) is None:
        return cls  # A plugin brought it.
    is_itself = there is not None and (there.__module__, there.__qualname__) == (cls.__module__, cls.__qualname__)
    is_installed = registered(cls.kind, cls.part_name()) is None
    if there is not None and not replace and (is_installed or not is_itself):
        raise PluginError(
            f"there is a {named(there)} already. Give {cls.__name__} another name, or write "
            f"rarkit.register({cls.__name__}, replace=True) to put it in the place of the other in this process."
        )
    add(cls)
    return cls


def _of_its_name(cls: type[Component]) -> type[Component] | None:
    """The part that has its kind and name at the moment."""
    if (one := registered(cls.kind, cls.part_name())) is not None:
        return one
    parts = (part for record in installed().records for kind, part in record.parts if kind == cls.kind)
    return next((part for part in parts if part.part_name() == cls.part_name()), None)
