"""Which modules were installed, and the source text of those that were not, with the modules that they import."""

from __future__ import annotations

import inspect
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import decode_source, find_spec
from pathlib import Path
from types import ModuleType

from rarkit.errors import PluginError
from rarkit.registry.source_names import imports_of
from rarkit.registry.source_text import CURE


def is_installed(module: str) -> bool:
    """Whether a module came with Python, with rarkit or with an installed distribution, so that a version vouches for it."""
    top = module.partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return False
    if top == "rarkit" or top in sys.stdlib_module_names:
        return True
    if (package := sys.modules.get(top)) is not None:
        file = getattr(package, "__file__", None) or next(iter(getattr(package, "__path__", ())), "")
    else:
        spec = _spec(top)
        file = "" if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), "")
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def module_texts(name: str, module: ModuleType | None, where: str) -> list[tuple[str, str]]:
    """A module that was not installed and those that it imports, directly or not: each with its text.

    Args:
        name: its full name.
        module: the module, if it has been imported; no module is imported here.
        where: for messages.

    Raises:
        PluginError: it has been imported from something that has no source text.
    """
    texts: dict[str, str] = {}
    waiting = [(name, module)]
    while waiting:
        name, module = waiting.pop()
        # A module inside a package runs the package first.
        above = name.rpartition(".")[0]
        if above:
            waiting.append((above, sys.modules.get(above)))
        if not name or name in texts or is_installed(name):
            continue
        spec = None if module is not None else _spec(name)
        text = _text(module, where) if module is not None else _file_text(spec)
        if text is None:
            # A name inside a module, or a module that is not there: what asks for it says so in its own text.
            continue
        texts[name] = text
        is_package = hasattr(module, "__path__") if module is not None else bool(spec and spec.submodule_search_locations)
        package = name if is_package else above
        imported = [absolute_name(one, package) for one in imports_of(text)]
        waiting += [(one, sys.modules.get(one)) for one in imported]
    return sorted(texts.items())


def absolute_name(name: str, package: str) -> str:
    """The full name of a module, of which a relative one begins with dots."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parts = package.split(".")
    return ".".join(part for part in (*parts[: len(parts) - level + 1], name[level:]) if part)


def _text(module: ModuleType, where: str) -> str:
    file = getattr(module, "__file__", None)
    if file is None and hasattr(module, "__path__"):
        return ""
    try:
        # ``inspect`` takes an empty file for none.
        return inspect.getsource(module) if file is None or Path(file).suffix != ".py" else _decoded(file)
    except (OSError, TypeError) as error:
        raise PluginError(f"{where} has no source text. {CURE}.") from error


def _file_text(spec: ModuleSpec | None) -> str | None:
    if spec is None:
        return None
    if spec.origin is None or not spec.has_location:
        return "" if spec.submodule_search_locations else None
    try:
        return _decoded(spec.origin) if spec.origin.endswith(".py") else None
    except OSError:
        return None


def _decoded(file: str) -> str:
    return decode_source(Path(file).read_bytes())


def _spec(name: str) -> ModuleSpec | None:
    """Where a module would be imported from; unlike ``find_spec``, nothing is imported to find it."""
    top, *inner = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    for depth in range(len(inner)):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join([top, *inner[: depth + 1]]), list(spec.submodule_search_locations))
    return spec
