"""Loads plugins from their entry points, each separately, so that a broken plugin does not affect the others."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from time import perf_counter
from typing import Any, Literal, final, get_args

import pluggy

from rarkit.errors import PluginError, RarkitWarning
from rarkit.registry import hookspecs
from rarkit.registry.component import Component
from rarkit.registry.contract import GROUP
from rarkit.registry.exits import told
from rarkit.registry.kinds import KINDS, Parts
from rarkit.registry.registered import current
from rarkit.registry.registry import Registry, Source
from rarkit.registry.requirement import check_version, of_distribution, of_module
from rarkit.registry.shown import shown
from rarkit.runtime.random_state import random_state_kept
from rarkit.runtime.signals import handlers_kept, raised_by_handlers

ONLY, BLOCK = "RARKIT_PLUGINS", "RARKIT_BLOCK_PLUGINS"
BUILTIN = "builtin"
SLOW_SECONDS = 10.0
"""After which a plugin that is still being loaded is named. Importing torch takes less on most disks."""
NAME = re.compile(r"[\w.+-]{1,100}")
"""What parts are called."""


@final
@dataclass(frozen=True)
class PluginRecord:
    """The outcome of loading one plugin."""

    source: Source
    status: Literal["loaded", "broken", "blocked"]
    parts: tuple[tuple[str, type[Component]], ...] = ()
    """(kind, class) of each part it adds."""
    cause: str = ""
    """Why the plugin is broken or blocked."""
    requires_rarkit: str = ""
    """The versions of rarkit that it was written for, as ``">=0.1,<0.2"``; "" if it does not say, or is not loaded."""
    seconds: float = 0.0
    """How long it took to load."""


@final
@dataclass(frozen=True)
class Loaded:
    """The records of all plugins, and one sentence for each part name that two of them claim."""

    records: tuple[PluginRecord, ...]
    conflicts: tuple[str, ...]

    def broken(self) -> tuple[str, ...]:
        """One sentence for each plugin that failed to load."""
        return tuple(
            f"Plugin {record.source.plugin!r} of {record.source.distribution} failed to load: {record.cause}."
            for record in self.records
            if record.status == "broken"
        )

    def parts(self, strict: bool = False) -> Parts:
        """The registries.

        Args:
            strict: treat a plugin that failed to load as an error even if no part of it is used.

        Raises:
            PluginError: two parts claim one name, or (``strict``) a plugin is broken.
        """
        problems = self.conflicts + (self.broken() if strict else ())
        if problems:
            raise PluginError(*problems)
        by_kind: dict[str, dict[str, tuple[Any, Source]]] = {kind: {} for kind in KINDS}
        for record in self.records:
            for kind, part in record.parts:
                by_kind[kind][part.part_name()] = part, record.source
        return Parts(**{kind: Registry(KINDS[kind], parts, self.broken()) for kind, parts in by_kind.items()})


@cache
def installed() -> Loaded:
    """The plugins of this environment, loaded once per process."""
    return load(entry_points(group=GROUP), os.environ.get(ONLY), os.environ.get(BLOCK))


def present() -> Loaded:
    """The installed plugins, and after them what was registered in this process so far: a record for each module of classes."""
    return _with_registered(current())


def parts(*, strict: bool = False) -> Parts:
    """The parts that are installed and registered at the moment, in one typed registry per kind.

    Raises:
        PluginError: two parts claim one name, or (``strict``) a plugin failed to load.
    """
    registered = current()
    return _parts(strict, registered) if registered else _installed_parts(strict)


@cache
def _installed_parts(strict: bool) -> Parts:
    return installed().parts(strict)


# With the parts that are registered as arguments, because these change. A recipe's model is made once for each of the results.
@lru_cache(maxsize=4)
def _parts(strict: bool, registered: tuple[type[Component], ...]) -> Parts:
    return _with_registered(registered).parts(strict)


def _with_registered(registered: tuple[type[Component], ...]) -> Loaded:
    modules = dict.fromkeys(part.__module__ for part in registered)
    records = [
        PluginRecord(
            Source.of_this_process(module), "loaded", tuple((part.kind, part) for part in registered if part.__module__ == module)
        )
        for module in modules
    ]
    return Loaded((*installed().records, *records), installed().conflicts)


def load(points: Iterable[EntryPoint], only: str | None = None, block: str | None = None) -> Loaded:
    """Loads the plugins behind entry points.

    Args:
        points: entry points, each naming a module or object with hook implementations.
        only: comma-separated names of the plugins to load in addition to ``builtin``; None loads all.
        block: comma-separated names of plugins to skip.

    Raises:
        PluginError: ``only`` or ``block`` names a plugin that is not installed.
    """
    unique = {(point.name, point.value): point for point in points}
    sources = {key: _source(point) for key, point in unique.items()}
    chosen, blocked = _names(only), _names(block) or set()
    for variable, names in ((ONLY, chosen or set()), (BLOCK, blocked)):
        missing = sorted(names - {name for name, _ in unique})
        if missing:
            known = ", ".join(sorted({name for name, _ in unique}))
            raise PluginError(f"{variable} names {missing[0]!r}, which is not an installed plugin. Installed: {known}.")
    records = []
    for key, point in sorted(unique.items()):
        source = sources[key]
        if point.name in blocked:
            records.append(PluginRecord(source, "blocked", cause=f"named in {BLOCK}"))
        elif chosen is not None and point.name not in chosen | {BUILTIN}:
            records.append(PluginRecord(source, "blocked", cause=f"not named in {ONLY}"))
        else:
            records.append(_load_one(point, source))
    return Loaded(tuple(records), tuple(_conflicts(records)))


def _names(variable: str | None) -> set[str] | None:
    return None if variable is None else {name.strip() for name in variable.split(",") if name.strip()}


def _source(point: EntryPoint) -> Source:
    if point.dist is None:
        return Source(point.name, point.value, "?")
    return Source(point.name, point.dist.name, point.dist.version)


def _load_one(point: EntryPoint, source: Source) -> PluginRecord:
    before, start = _working_folder(), perf_counter()
    with handlers_kept(), random_state_kept(), raised_by_handlers() as stops, _told_if_slow(source):
        record = _outcome(point, source)
    if before is not None and _working_folder() != before:
        os.chdir(before)
    if stops:
        # The plugin may have swallowed it, or turned it into another exception.
        raise stops[0]
    return replace(record, seconds=perf_counter() - start)


def _working_folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


@contextmanager
def _told_if_slow(source: Source) -> Iterator[None]:
    """Names a plugin that takes long to load, since it may never return."""
    own = source.plugin == BUILTIN
    cure = "They are rarkit's own parts: is the disk slow?" if own else f"{BLOCK}={source.plugin} leaves it out."
    message = f"plugin {source.plugin!r} of {source.distribution} is still being loaded after {SLOW_SECONDS:g} seconds. {cure}"
    timer = threading.Timer(SLOW_SECONDS, warnings.warn, (message, RarkitWarning))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _outcome(point: EntryPoint, source: Source) -> PluginRecord:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    # A plugin's code may raise anything, sys.exit() and its own KeyboardInterrupt too; it is recorded as the cause.
    versions = ""
    try:
        # Before it is imported, because what it lacks in another rarkit may be told as anything.
        check_version(versions := of_distribution(point))
        plugin = point.load()
        check_version(versions := of_module(plugin) or versions)
        manager.register(plugin, source.plugin)
        manager.check_pending()
        parts = [
            (kind, _checked(part, kind))
            for kind in KINDS
            for returned in getattr(manager.hook, KINDS[kind].hook)()
            for part in _listed(returned, kind)
        ]
    except BaseException as error:
        return PluginRecord(source, "broken", cause=told(error), requires_rarkit=versions)
    return PluginRecord(source, "loaded", tuple(parts), requires_rarkit=versions)


def _listed(returned: object, kind: str) -> Sequence[object]:
    # A generator may have no end.
    if not isinstance(returned, list | tuple):
        raise PluginError(f"{KINDS[kind].hook} must return a list of classes, not {type(returned).__name__}")
    return returned


def _checked(part: object, kind: str) -> type[Component]:
    hook = KINDS[kind].hook
    if not isinstance(part, type) or not issubclass(part, Component):
        raise PluginError(f"{hook} must return a list of classes derived from rarkit's bases, not {part!r}")
    if getattr(part, "kind", None) != kind:
        actual = getattr(part, "kind", None)
        raise PluginError(f"{hook} returned {part.__qualname__}, whose kind is {actual!r}; it must be {kind!r}")
    check_class(part)
    return part


def check_class(part: type[Component]) -> None:
    """Checks what every part must have.

    Raises:
        PluginError: it has abstract methods, no name or one that cannot be typed, or no docstring.
    """
    if isabstract(part):
        raise PluginError(f"{part.__qualname__} leaves methods undefined: {', '.join(sorted(part.__abstractmethods__))}")
    # With annotations that name nothing, no recipe could be read, whichever parts it has. Raises if there are any.
    part.model_rebuild()
    name = part.model_fields["name"]
    if not isinstance(name.default, str) or get_args(name.annotation) != (name.default,):
        raise PluginError(f'{part.__qualname__} has no name; write name: Literal["…"] = "…" in the class')
    if not NAME.fullmatch(name.default):
        raise PluginError(
            f"{part.__qualname__} has the name {shown(name.default)}; recipes and commands need one of 1 to 100 letters, digits, "
            "and any of . _ - +"
        )
    if not part.__doc__:
        raise PluginError(f"{part.__qualname__} has no docstring; write one: it is the part's documentation")


def _conflicts(records: Iterable[PluginRecord]) -> Iterable[str]:
    claimed: dict[tuple[str, str], tuple[type[Component], Source]] = {}
    for record in records:
        for kind, part in record.parts:
            key = kind, part.part_name()
            if key in claimed:
                yield (
                    f"{claimed[key][1]} and {record.source} both have a part called {key[1]!r} ({kind}). Uninstall one, or "
                    f"block one: {BLOCK}={record.source.plugin}."
                )
            else:
                claimed[key] = part, record.source
