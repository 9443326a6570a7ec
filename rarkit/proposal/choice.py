"""What was chosen for a recipe: a setting, its value and the reason, which becomes its comment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, final


@final
class Choice(NamedTuple):
    """One line of a recipe."""

    key: str
    value: Any
    """As TOML has it: text, a number, true or false, a list, or a table in a line."""
    why: str
    """A phrase, without a full stop."""


def as_table(choices: Iterable[Choice]) -> dict[str, Any]:
    """The table that the choices make."""
    return {choice.key: choice.value for choice in choices}
