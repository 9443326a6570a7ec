"""Checks of what parts return, made by the base class of a kind for all its subclasses, whoever calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from importlib.metadata import entry_points
from inspect import isfunction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import PluginError
from rarkit.registry.component import Component

GROUP = "rarkit"
"""The group of entry points that name plugins."""
Check = Callable[..., Any]
"""Calls a method and checks what it returns: ``check(self, method, *args)``, where ``method(*args)`` is bound to ``self``."""


def checked(cls: type, **checks: Check) -> None:
    """For ``__init_subclass__``: the methods that ``cls`` itself defines are called through these checks, by the method's name."""
    for name, check in checks.items():
        method = vars(cls).get(name)
        if isfunction(method) and not getattr(method, "__isabstractmethod__", False):
            setattr(cls, name, _through(method, check))


def _through(method: Callable[..., Any], check: Check) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return check(self, method.__get__(self), *args, **kwargs)

    return call


def broken(part: Component, fault: str) -> PluginError:
    """The error about a part that breaks the contract of its kind.

    Args:
        part: the part.
        fault: what is wrong and what is promised, after the part's name: ``"returns …; it must return …"``.
    """
    return PluginError(f"{named(type(part))} {fault}. Choose another part, or correct this one.")


def named(cls: type[Component]) -> str:
    """A part for messages: ``"scan order 'columns' of rarkit-columns 0.1.0 (plugin 'columns')"``."""
    kind = cls.kind.replace("_", " ").removesuffix("s") if cls.kind != "models" else "model family"
    return f"{kind} {cls.part_name()!r} of {origin(cls)}"


def origin(cls: type) -> str:
    """Where a class came from: the plugin and its distribution, or else the class by its full name."""
    return plugins().get(cls.__module__.partition(".")[0]) or f"{cls.__module__}.{cls.__qualname__}"


def plugins() -> dict[str, str]:
    """The installed plugins, each with its distribution, by the name of their outermost module."""
    named_by_module: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        if point.dist is not None:
            named_by_module.setdefault(
                point.module.partition(".")[0], f"{point.dist.name} {point.dist.version} (plugin {point.name!r})"
            )
    return named_by_module


def check_fit(part: Component, fit: Callable[..., Any], *arguments: Any) -> Mapping[str, NDArray[np.generic]]:
    """A ``Check`` of ``fit``: what it learned must be arrays by name, of numbers that the store can keep."""
    state = fit(*arguments)
    if not isinstance(state, Mapping):
        raise broken(part, f"learns {type(state).__name__}; fit must return arrays by name")
    for name, values in state.items():
        if not isinstance(name, str) or not isinstance(values, np.ndarray | np.generic) or values.dtype.kind not in "biuf":
            what = f"an array of {values.dtype}" if isinstance(values, np.ndarray | np.generic) else type(values).__name__
            raise broken(part, f"learns {name!r}, which is {what}; it must be a NumPy array of numbers")
    return state
