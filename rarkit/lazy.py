"""Public names that are imported on first use, so that importing a package stays fast."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and the sorted names of a package that re-exports names from other modules.

    ``dir()`` lists the package's ``__all__`` and ``modules``, and nothing that the package imported for its own use.

    Args:
        package: the package's ``__name__``.
        homes: the names that each module provides, keyed by the module's dotted name.
        modules: the package's public modules, each an attribute without an import of its own. They are not among the names, so
            that ``from package import *`` does not import them.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home[name]), name)
        # Later accesses find the attribute without calling this function.
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*sys.modules[package].__all__, *modules})

    return get, names, sorted(home)
