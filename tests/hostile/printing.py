"""Names and titles that steer terminals.

Each is printed once to a pipe and once to a terminal, which gets colours too.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.hostile.entry import Entry, Place

ENTRIES: list[Entry] = []
STEERING = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb"
"""Sets a title, clears the screen, colours what follows in two ways and turns it around."""
MARKUP = "[/x][red]a[link=file:///etc/passwd]b"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb"
TOML = json.dumps(STEERING)


def _printed(command: str, *, code: int, words: tuple[str, ...]) -> Callable[[Callable[[Place], object]], None]:
    def add(make: Callable[[Place], object]) -> None:
        for terminal in (False, True):
            name = f"{make.__name__}_on_a_{'terminal' if terminal else 'pipe'}"
            ENTRIES.append(Entry(name, make, tuple(command.split()), code=code, words=words, terminal=terminal))

    return add


@_printed("validate recipe.toml", code=2, words=(MARKUP,))
def an_unknown_part_in_markup(place: Place) -> None:
    place.recipe(f'[scan_order]\nname = "{MARKUP}"\n')


@_printed("sample runs/small --class nothing --device cpu", code=2, words=(SHOWN,))
def a_class(place: Place) -> None:
    receipt = place.finished() / "receipt.json"
    content = json.loads(receipt.read_text())
    for classes in (content["images"], content["recipe"]["dataset"]):
        classes["class_names"][0] = STEERING
    receipt.write_text(json.dumps(content))


@_printed("cache verify --store store", code=1, words=("damaged",))
def a_name_of_a_chunk(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/fit").iterdir()
    (output / "state_codebook/c" / STEERING.replace("/", "")).write_text("x")
    (output / "state_codebook/c/0/0").write_text("x")
