"""What a kind of part is. Imports nothing heavy, not even pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


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
