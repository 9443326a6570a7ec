"""How somebody's images lie, as a phrase and as the settings of a dataset part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from rarkit.proposal.choice import Choice


@final
@dataclass(frozen=True)
class Layout:
    """How images lie, and the ``[dataset]`` table that reads them, without their size."""

    what: str
    """A phrase."""
    dataset: tuple[Choice, ...]
    """``name`` first, then the place and what else its files need."""
    remarks: tuple[str, ...] = ()
    """Sentences on what is passed over, or could be meant otherwise."""
    classes: tuple[tuple[str, int], ...] | None = None
    """Names of the classes and their images, where looking at the layout told."""

    def with_choices(self, *choices: Choice) -> Layout:
        """The same layout with more settings; those that it has are replaced."""
        kept = {choice.key: choice for choice in (*self.dataset, *choices)}
        return Layout(self.what, tuple(kept.values()), self.remarks, self.classes)

    def setting(self, key: str) -> Any:
        """The value of a setting; None if it has none."""
        return next((choice.value for choice in self.dataset if choice.key == key), None)
