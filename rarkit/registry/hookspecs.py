"""The hooks through which plugins add parts to rarkit: one per kind, ``rarkit_<kind>``.

A plugin is a module (or object) named by an entry point in the group ``rarkit``. Each hook takes no arguments and returns a list of
classes (not instances). It must not import torch, read files or inspect the machine. Hooks are called once, on the first use of
the parts, in no particular order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

from rarkit.registry.kind import Kind
from rarkit.registry.kinds import KINDS

PROJECT = "rarkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


def _hook(kind: Kind) -> Callable[[], list[type[Any]]]:
    def hook() -> list[type[Any]]:  # type: ignore[empty-body]
        ...

    hook.__name__ = hook.__qualname__ = kind.hook
    hook.__doc__ = f"{kind.title}: {kind.about}. Chosen by ``{kind.header} name = …``."
    return hookspec(hook)


globals().update({kind.hook: _hook(kind) for kind in KINDS.values()})
