"""Recipes that are nonsense."""

from __future__ import annotations

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "circular extends"))
def recipes_that_extend_each_other(place: Place) -> None:
    place.write("recipe.toml", 'extends = "other.toml"')
    place.write("other.toml", 'extends = "recipe.toml"')
