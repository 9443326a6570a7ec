"""The typed registry: for each kind of part, a read-only mapping from name to class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, final

from rarkit.errors import UnknownPartError, did_you_mean
from rarkit.registry.component import Component
from rarkit.registry.kind import Kind

T = TypeVar("T", bound=Component)

KNOWN_PLUGINS = {
    ("datasets", "huggingface"): "rarkit-hf",
    ("scan_orders", "hilbert"): "rarkit-hilbert",
    ("tokenizers", "vq"): "rarkit-vq",
    ("tokenizers", "llamagen_vq"): "rarkit-llamagen",
    ("tokenizers", "titok"): "rarkit-titok",
    ("tokenizers", "diffusers_vq"): "rarkit-diffusers",
    ("attention_backends", "xformers"): "rarkit-xformers",
    ("trackers", "wandb"): "rarkit-wandb",
}
"""Parts of the plugins in rarkit's repository, which no package index has: named in the error if the part is missing."""


def install(plugin: str) -> str:
    """How to install one of them."""
    return f"pip install ./plugins/{plugin}, in a checkout of rarkit"


@final
@dataclass(frozen=True)
class Source:
    """Where a part came from: the entry point's name and the distribution that declares it."""

    plugin: str
    distribution: str
    distribution_version: str
    module: str | None = None
    """Of a part that was registered in Python, the module of its class; None if a plugin brought it."""

    @classmethod
    def of_this_process(cls, module: str) -> Source:
        """Of parts that were registered in this process."""
        return cls("-", "this process", "", module)

    def __str__(self) -> str:
        if self.module is not None:
            return f"{self.distribution} ({self.module})"
        return f"{self.distribution} {self.distribution_version} (plugin {self.plugin!r})"


@final
class Registry(Mapping[str, type[T]], Generic[T]):
    """The parts of one kind, by name, in alphabetical order of names."""

    def __init__(self, kind: Kind, parts: Mapping[str, tuple[type[T], Source]], problems: tuple[str, ...] = ()) -> None:
        """``problems``: sentences added to the error about a missing part (plugins that failed to load)."""
        self.kind = kind
        self._parts = dict(sorted(parts.items()))
        self._problems = problems

    def __getitem__(self, name: str) -> type[T]:
        if name in self._parts:
            return self._parts[name][0]
        raise UnknownPartError(self.unknown(name))

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return f"Registry({self.kind.name!r}, {', '.join(self._parts)})"

    def _ipython_key_completions_(self) -> list[str]:
        """What IPython and Jupyter offer after ``scan_orders["``."""
        return list(self._parts)

    def source(self, name: str) -> Source:
        """The plugin that the part comes from."""
        self[name]
        return self._parts[name][1]

    def unknown(self, name: str) -> str:
        """The message about an unknown name: similar names, installed names, and the distribution to install if known."""
        hint = did_you_mean(name, self._parts)
        message = f"no {self.kind.singular} is called {name!r}{hint} Installed: {', '.join(self._parts) or 'none'}."
        if (self.kind.name, name) in KNOWN_PLUGINS:
            plugin = KNOWN_PLUGINS[self.kind.name, name]
            message += f" It comes with {plugin}: {install(plugin)}."
        elif hint == ".":
            message += " One of your own: rarkit.register it."
        return " ".join([message, *self._problems])
