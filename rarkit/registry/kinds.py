"""The kinds of parts, listed once: hooks, registries, recipe tables and public names follow from the fields of ``Parts``.

Imports nothing heavy, not even pydantic: the command line reads it to start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, final

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


@final
@dataclass(frozen=True)
class Kind:
    """One kind of part."""

    name: str
    """Plural, as registries and hooks name it: ``"scan_orders"``."""
    table: str
    """The recipe table whose ``name`` chooses one, dotted where it is inside another."""
    home: str
    """The module of the kind's base class."""
    public: tuple[str, ...]
    """What ``rarkit`` exports from there, the base class first."""
    about: str
    """What parts of this kind are, in a few words."""
    default: str | None = None
    """The part a table without ``name`` means."""

    @property
    def singular(self) -> str:
        return self.title.lower().removesuffix("s") if self.name != "models" else "model family"

    @property
    def title(self) -> str:
        return "Model families" if self.name == "models" else self.name.replace("_", " ").capitalize()

    @property
    def hook(self) -> str:
        return f"rarkit_{self.name}"


def _kind(table: str, home: str, public: tuple[str, ...], about: str, default: str | None = None) -> Any:
    return field(metadata={"table": table, "home": home, "public": public, "about": about, "default": default})


@final
@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that is installed: one registry for each kind."""

    datasets: Registry[Dataset] = _kind(
        "dataset", "rarkit.datasets.base", ("Dataset",), "labelled images, in a fixed order"
    )
    tokenizers: Registry[Tokenizer] = _kind(
        "tokenizer", "rarkit.tokenizers.base", ("Tokenizer", "TokenizerModel"), "images to grids of codes and back"
    )
    scan_orders: Registry[ScanOrder] = _kind(
        "scan_order", "rarkit.scan_orders.base", ("ScanOrder",), "bijections from step to raster index"
    )
    permutation_schedules: Registry[PermutationSchedule] = _kind(
        "permutation_schedule",
        "rarkit.permutation_schedules.base",
        ("PermutationSchedule",),
        "the random ratio as a function of training progress",
    )
    attention_backends: Registry[AttentionBackend] = _kind(
        "attention",
        "rarkit.attention.base",
        ("AttentionBackend", "AttentionFunction", "Dropout"),
        "the kernel inside the transformer's attention",
    )
    models: Registry[ModelFamily] = _kind(
        "model", "rarkit.models.base", ("ModelFamily", "ModelConfig"), "how tokens become logits", default="rar"
    )
    feature_extractors: Registry[FeatureExtractor] = _kind(
        "evaluate.features",
        "rarkit.features.base",
        ("FeatureExtractor", "FeatureModel", "Features"),
        "the spaces in which evaluation compares images",
    )

    def of_kind(self, kind: str) -> Registry[Component]:
        """The registry of one kind, by the kind's name."""
        registry: Registry[Component] = getattr(self, KINDS[kind].name)
        return registry


KINDS: dict[str, Kind] = {one.name: Kind(one.name, **one.metadata) for one in fields(Parts)}
"""By name, in the order in which the documentation shows them."""
TABLES: dict[str, Kind] = {kind.table: kind for kind in KINDS.values()}
"""By the recipe table that chooses a part of the kind."""
