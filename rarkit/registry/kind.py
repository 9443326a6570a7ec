"""The description of a kind of part. Imports nothing heavy, not even pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Kind:
    """One kind of part."""

    name: str
    """The plural, as in registries and hooks: ``"scan_orders"``."""
    table: str
    """The recipe table (if ``many``, the array of tables) whose ``name`` selects a part; dotted if it is nested."""
    home: str
    """The module of the kind's base class."""
    public: tuple[str, ...]
    """The names that ``rarkit`` exports from ``home``, the base class first."""
    about: str
    """What parts of this kind do, in a few words."""
    default: str | None = None
    """The part that a table without ``name`` selects."""
    default_with: str | None = None
    """The setting that such a table must have; None if it need not have any."""
    many: bool = False
    """Whether a recipe takes a list of such parts, none by default."""
    observes: bool = False
    """Whether its parts watch a run and decide nothing in it: no fingerprint has them, and a finished run is read without them."""

    @property
    def header(self) -> str:
        """What stands above the part's settings in a recipe: ``"[scan_order]"``, ``"[[trackers]]"``."""
        return f"[[{self.table}]]" if self.many else f"[{self.table}]"

    def named(self, table: Any) -> Any:
        """A recipe's table with the name of the default part, if it has none and selects that."""
        if self.default is None or not isinstance(table, dict) or "name" in table:
            return table
        return {"name": self.default, **table} if self.default_with is None or self.default_with in table else table

    @property
    def singular(self) -> str:
        """For messages: ``"scan order"``."""
        return self.title.lower().removesuffix("s") if self.name != "models" else "model family"

    @property
    def title(self) -> str:
        """For headings: ``"Scan orders"``."""
        return "Model families" if self.name == "models" else self.name.replace("_", " ").capitalize()

    @property
    def hook(self) -> str:
        """The name of the hook that plugins implement."""
        return f"rarkit_{self.name}"
