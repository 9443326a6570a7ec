"""The typed registry: one frozen mapping from name to class for each kind of part."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, final

from rarkit.errors import UnknownPartError
from rarkit.registry.component import Component

if TYPE_CHECKING:
    from rarkit.attention.base import AttentionBackend
    from rarkit.datasets.base import Dataset
    from rarkit.features.base import FeatureExtractor
    from rarkit.permutation_schedules.base import PermutationSchedule
    from rarkit.scan_orders.base import ScanOrder
    from rarkit.tokenizers.base import Tokenizer

T = TypeVar("T", bound=Component)

KINDS = (
    "tokenizers",
    "scan_orders",
    "permutation_schedules",
    "attention_backends",
    "datasets",
    "feature_extractors",
)

KNOWN_PLUGINS = {("scan_orders", "hilbert"): "rarkit-hilbert", ("attention_backends", "xformers"): "rarkit-xformers"}
"""Parts that are known to live in a distribution of their own: where one is missing, the error says what to install."""


@final
@dataclass(frozen=True)
class Source:
    """Where a part came from: the entry point's name and the distribution that declares it."""

    plugin: str
    distribution: str
    distribution_version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.distribution_version} (plugin {self.plugin!r})"


@final
class Registry(Mapping[str, type[T]], Generic[T]):
    """The parts of one kind, by name, in alphabetical order."""

    def __init__(self, kind: str, parts: Mapping[str, tuple[type[T], Source]], problems: tuple[str, ...] = ()) -> None:
        """``problems``: what to tell somebody whose part is missing (plugins that failed to load)."""
        assert kind in KINDS, kind
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
        return f"Registry({self.kind!r}, {', '.join(self._parts)})"

    def source(self, name: str) -> Source:
        """Which plugin brought the part."""
        self[name]
        return self._parts[name][1]

    def unknown(self, name: str) -> str:
        """What to tell somebody who asked for a name that is not here: what is, what it resembles, what to install."""
        what = self.kind.replace("_", " ").removesuffix("s")
        said = f"no {what} is called {name!r}"
        close = difflib.get_close_matches(name, self._parts, n=1)
        said += f"; did you mean {close[0]!r}?" if close else "."
        said += f" Installed: {', '.join(self._parts) or 'none'}."
        if (self.kind, name) in KNOWN_PLUGINS:
            said += f" It comes with {KNOWN_PLUGINS[self.kind, name]}: pip install {KNOWN_PLUGINS[self.kind, name]}."
        return " ".join([said, *self._problems])


@final
@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that is installed: one registry for each kind."""

    tokenizers: Registry[Tokenizer]
    scan_orders: Registry[ScanOrder]
    permutation_schedules: Registry[PermutationSchedule]
    attention_backends: Registry[AttentionBackend]
    datasets: Registry[Dataset]
    feature_extractors: Registry[FeatureExtractor]

    def of_kind(self, kind: str) -> Registry[Component]:
        """The registry of one of ``KINDS``."""
        assert kind in KINDS, kind
        found: Registry[Component] = getattr(self, kind)
        return found
