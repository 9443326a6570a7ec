"""Names and titles that steer terminals.

Most are printed once to a pipe and once to a terminal, which gets colours too.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable

from tests.hostile.entry import Entry, Maker, Place

ENTRIES: list[Entry] = []
STEERING = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb"
"""Sets a title, clears the screen, colours what follows in two ways and turns it around."""
MARKUP = "[/x][red]a[link=file:///etc/passwd]b"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb"
TOML = json.dumps(STEERING)


def _printed(
    command: str, *, code: int, words: tuple[str, ...], terminals: tuple[bool, ...] = (False, True)
) -> Callable[[Maker], Maker]:
    def add(make: Maker) -> Maker:
        for terminal in terminals:
            name = f"{make.__name__}_on_a_{'terminal' if terminal else 'pipe'}"
            ENTRIES.append(Entry(name, make, tuple(command.split()), code=code, words=words, terminal=terminal))
        return make

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


@_printed("plan recipe.toml", code=0, words=(SHOWN + MARKUP,))
def a_title_with_markup(place: Place) -> None:
    place.recipe(f"title = {json.dumps(STEERING + MARKUP)}\n")


@_printed("validate recipe.toml", code=2, words=("no such key", r"a\nerror: forged"), terminals=(True,))
def a_key_that_forges_a_message(place: Place) -> None:
    place.recipe('[train]\n"a\\nerror: forged" = 1\n')


@_printed("plugins list", code=0, words=(SHOWN + MARKUP, "broken"))
def a_plugin(place: Place) -> None:
    place.plugin("bad_plugin", f"raise ValueError({STEERING + MARKUP!r})")
    about = place.work / "site/bad_plugin-1.0.dist-info"
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: bad{STEERING}\nVersion: 1{STEERING}\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[rarkit]\nbad{STEERING} = bad_plugin\n", encoding="utf-8")


@_printed("validate recipe.toml", code=2, words=(SHOWN, "failed to load"), terminals=(True,))
def a_plugin_that_may_have_had_the_part(place: Place) -> None:
    a_plugin(place)
    place.recipe('[scan_order]\nname = "nothing"\n')


@_printed(
    "run small.toml --store store --device cpu --force evaluate --no-wait",
    code=2,
    words=(r"process 7 on a\x9b31m\u202e[/x]",),
    terminals=(True,),
)
def a_host_that_holds_a_lock(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    # Host names with the other control characters are no lock's: those are waited for.
    lock = {"host": "a\x9b31m\u202e[/x]", "pid": 7, "token": "a", "heartbeat": time.time(), "since": time.time()}
    (output / "lock.json").write_text(json.dumps(lock))


@_printed("run recipe.toml --until tokenize --device cpu", code=2, words=(SHOWN, "cannot be read as an image"), terminals=(True,))
def a_member_of_a_shard(place: Place) -> None:
    with tarfile.open(place.work / "a.tar", "w") as shard:
        for name, content in ((f"{STEERING}.png", b"no image"), (f"{STEERING}.cls", b"0")):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            shard.addfile(about, io.BytesIO(content))
    place.recipe(
        'unset = ["dataset"]\n[dataset]\nname = "webdataset"\nurls = "a.tar"\nclass_names = ["a", "b"]\nsize = 4\nworkers = 0\n'
    )


@_printed("sample runs/small --class 0 --device cpu", code=2, words=(SHOWN,), terminals=(True,))
def an_address_in_a_receipt(place: Place) -> None:
    receipt = place.finished() / "receipt.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"store": f"nowhere{STEERING}"}))
    shutil.rmtree(place.work / "store")
