"""Recipes that are nonsense."""

from __future__ import annotations

import os

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "circular extends"))
def recipes_that_extend_each_other(place: Place) -> None:
    place.write("recipe.toml", 'extends = "other.toml"')
    place.write("other.toml", 'extends = "recipe.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "is a named pipe"))
def a_pipe_in_place_of_a_recipe(place: Place) -> None:
    os.mkfifo(place.work / "recipe.toml")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "is a device"))
def a_recipe_without_an_end(place: Place) -> None:
    (place.work / "recipe.toml").symlink_to("/dev/zero")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "1,048,576 bytes"))
def a_recipe_of_a_gigabyte(place: Place) -> None:
    os.truncate(place.write("recipe.toml", ""), 1 << 30)


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml:2", "more than 8 parts"))
def tables_nested_a_thousand_deep(place: Place) -> None:
    place.recipe(f"[{'.'.join(['a'] * 1000)}]\nx = 1\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "8 deep"))
def lists_nested_a_hundred_thousand_deep(place: Place) -> None:
    place.recipe(f"a = {'[' * 100_000}\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "more than 16 recipes"))
def a_chain_of_recipes_a_hundred_long(place: Place) -> None:
    for number in range(100):
        place.write(f"{number}.toml", f'extends = "{number + 1}.toml"')
    place.write("recipe.toml", 'extends = "0.toml"')


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "digits"))
def a_number_of_five_thousand_digits(place: Place) -> None:
    place.recipe(f"[train]\nsteps = {'9' * 5000}\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("weight_decay",))
def an_infinite_weight_decay(place: Place) -> None:
    place.recipe("[train]\nweight_decay = inf\n")


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("UTF-8",))
def a_recipe_in_no_encoding(place: Place) -> None:
    place.write("recipe.toml", b'title = "\xff\xfe\x00"\n')
