"""The kinds of parts, listed once: hooks, registries, recipe tables and public names follow from the fields of ``Parts``.

Imports nothing heavy, not even pydantic, because the command line imports it at start-up.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, final

from rarkit.registry.kind import Kind

if TYPE_CHECKING:
    from rarkit.attention.base import AttentionBackend
    from rarkit.datasets.base import Dataset
    from rarkit.features.base import FeatureExtractor
    from rarkit.models.base import ModelFamily
    from rarkit.permutation_schedules.base import PermutationSchedule
    from rarkit.registry.component import Component
    from rarkit.registry.registry import Registry
    from rarkit.scan_orders.base import ScanOrder
    from rarkit.tokenizers.base import Tokenizer
    from rarkit.trackers.base import Tracker


@final
@dataclass(frozen=True, eq=False)
class Parts:
    """All installed parts: one registry per kind."""

    datasets: Registry[Dataset] = field(
        metadata={
            "table": "dataset",
            "home": "rarkit.datasets.base",
            "public": ("Dataset",),
            "about": "labelled images in a fixed order",
        }
    )
    tokenizers: Registry[Tokenizer] = field(
        metadata={
            "table": "tokenizer",
            "home": "rarkit.tokenizers.base",
            "public": ("Tokenizer", "TokenizerModel"),
            "about": "images to grids of codes and back",
            "default": "exported",
            "default_with": "weights",
        }
    )
    scan_orders: Registry[ScanOrder] = field(
        metadata={
            "table": "scan_order",
            "home": "rarkit.scan_orders.base",
            "public": ("ScanOrder",),
            "about": "bijections from step to raster index",
        }
    )
    permutation_schedules: Registry[PermutationSchedule] = field(
        metadata={
            "table": "permutation_schedule",
            "home": "rarkit.permutation_schedules.base",
            "public": ("PermutationSchedule",),
            "about": "the random ratio as a function of training progress",
        }
    )
    attention_backends: Registry[AttentionBackend] = field(
        metadata={
            "table": "attention",
            "home": "rarkit.attention.base",
            "public": ("AttentionBackend", "AttentionFunction", "Dropout"),
            "about": "the kernel inside the transformer's attention",
        }
    )
    models: Registry[ModelFamily] = field(
        metadata={
            "table": "model",
            "home": "rarkit.models.base",
            "public": ("ModelFamily", "ModelConfig"),
            "about": "how tokens become logits",
            "default": "rar",
        }
    )
    feature_extractors: Registry[FeatureExtractor] = field(
        metadata={
            "table": "evaluate.features",
            "home": "rarkit.features.base",
            "public": ("FeatureExtractor", "FeatureModel", "Features"),
            "about": "the spaces in which evaluation compares images",
        }
    )
    trackers: Registry[Tracker] = field(
        metadata={
            "table": "trackers",
            "home": "rarkit.trackers.base",
            "public": ("Tracker", "OpenTracker", "TrackedRun"),
            "about": "where the numbers and pictures of a training are shown while it runs",
            "many": True,
            "observes": True,
        }
    )

    def of_kind(self, kind: str) -> Registry[Component]:
        """The registry of the kind with this name."""
        registry: Registry[Component] = getattr(self, KINDS[kind].name)
        return registry


KINDS: dict[str, Kind] = {registry.name: Kind(registry.name, **registry.metadata) for registry in fields(Parts)}
"""The kinds by name, in the order of the documentation."""
TABLES: dict[str, Kind] = {kind.table: kind for kind in KINDS.values()}
"""The kinds by the recipe table that selects a part; of a kind of which there are ``many``, each item of the table does."""
OBSERVERS = frozenset(kind.table for kind in KINDS.values() if kind.observes)
"""The tables of the parts that decide nothing in a run."""


def kind_at(path: str) -> Kind | None:
    """The kind of the part at a dotted path of a recipe: ``scan_order``, ``trackers.0``. None if no part belongs there."""
    table, _, index = path.rpartition(".")
    is_item = index.isdecimal() and table in TABLES and TABLES[table].many
    kind = TABLES.get(table if is_item else path)
    return kind if kind is not None and kind.many == is_item else None


def kind_named(name: str) -> Kind:
    """A kind of part by its name, in the singular or the plural: ``scan_order``, ``scan-orders``.

    Raises:
        UserError: there is no such kind.
    """
    known = {kind.name.removesuffix("s"): kind for kind in KINDS.values()}
    written = name.lower().replace("-", "_").replace(" ", "_").removesuffix("s")
    if written not in known:
        # On use: importing rarkit imports this file.
        from rarkit.errors import UserError, did_you_mean

        raise UserError(f"there is no kind of part {name!r}{did_you_mean(written, known)} There are: {', '.join(known)}.")
    return known[written]
