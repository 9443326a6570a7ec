"""Records, receipts, locks and the like with content of a stranger's."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from rarkit.cache.store import Store
from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
SAMPLE = "sample runs/small --class 0 -o a.png --device cpu"
AGAIN = "run small.toml --store store --runs runs --device cpu"
RUN = {"format": 3, "recipe_name": "a", "variant": {"file": None}, "folder": "/a", "host": "a", "stages": []}
DEEP = '{"a":' * 100_000


def _receipt(name: str, content: str, *words: str) -> None:
    def make(place: Place) -> None:
        (place.finished() / "receipt.json").write_text(content)

    ENTRIES.append(Entry(f"a_receipt_{name}", make, tuple(SAMPLE.split()), code=2, words=("receipt.json", *words)))


_receipt("that_is_a_list", "[]")
_receipt("that_is_nothing", "null")
_receipt("that_is_no_json", "{")
_receipt("with_a_number_of_ten_thousand_digits", '{"format": ' + "9" * 10_000 + "}")
_receipt("of_a_format_of_the_future", '{"format": 1000}')


def _receipt_with(name: str, **changed: object) -> None:
    def make(place: Place) -> None:
        receipt = place.finished() / "receipt.json"
        receipt.write_text(json.dumps(json.loads(receipt.read_text()) | changed))

    ENTRIES.append(Entry(f"a_receipt_{name}", make, tuple(SAMPLE.split()), code=2, words=("receipt.json",)))


_receipt_with("whose_stages_are_a_number", stages=3)
_receipt_with("whose_outputs_lie_elsewhere", stages=[{"name": "..", "fingerprint": "../outside", "identity": {}, "upstream": {}}])
_receipt_with("with_images_of_no_size", images={"height": 10**18, "width": -1, "channels": 3, "class_names": []})
_receipt_with("whose_weights_are_a_list", weights=[1])
_receipt_with("whose_recipe_is_a_list", recipe=[1])
_receipt_with("whose_store_is_a_table", store={"a": 1})


@hostile(ENTRIES, "cache gc --store store --yes", code=2, words=("receipt", "damaged"))
def a_receipt_in_a_store_that_spoils_the_list(place: Place) -> None:
    place.finished()
    place.write("store/receipts/a.json", '{"format": 3, "stages": [1, "a", null], "variant": 7}')


LET_GO = "rarkit cache rm receipts/a removes it"


@hostile(ENTRIES, "cache gc --store store --yes", code=2, words=("receipts/a.json cannot be read", LET_GO))
def a_receipt_that_is_a_link_to_nothing(place: Place) -> None:
    place.finished()
    (place.work / "store/receipts/a.json").symlink_to(place.work / "nothing")


@hostile(ENTRIES, "cache gc --store store --yes", code=2, words=("receipts/a.json cannot be read", LET_GO))
def a_receipt_that_is_a_link_to_itself(place: Place) -> None:
    place.finished()
    (place.work / "store/receipts/a.json").symlink_to("a.json")


@hostile(ENTRIES, "cache ls --store store", code=0, words=("evaluate", "needed by runs/small"))
def a_receipt_that_is_a_folder(place: Place) -> None:
    place.finished()
    place.write("store/receipts/a.json/b", "")


def _is_removed(place: Place) -> None:
    assert not os.path.lexists(place.work / "store/receipts/a.json")


@hostile(ENTRIES, "cache rm receipts/a --store store --yes", code=0, words=("removed receipts/a",), after=_is_removed)
def a_damaged_receipt_to_remove(place: Place) -> None:
    place.finished()
    place.write("store/receipts/a.json", "{")


@hostile(ENTRIES, "cache rm receipts/a --store store --yes", code=0, words=("removed receipts/a",), after=_is_removed)
def a_receipt_that_leads_to_nothing_to_remove(place: Place) -> None:
    a_receipt_that_is_a_link_to_nothing(place)


@hostile(ENTRIES, "cache ls --store store", code=0, words=("evaluate",))
def receipts_beside_those_that_tell_who_needs_what(place: Place) -> None:
    place.finished()
    place.write("store/receipts/deep.json", DEEP)
    place.write("store/receipts/folder.json", json.dumps({**RUN, "folder": "/" + "a" * 4000}))
    place.write("store/receipts/stage.json", json.dumps({**RUN, "stages": [{"name": "fit/../..", "fingerprint": "a" * 20}]}))
    place.write("store/receipts/text.json", b'{"recipe_name": "\xff"}')
    place.write("store/receipts/tables.json", '{"a": [' + '{"":1},' * 2_000_000 + "1]}")


@hostile(ENTRIES, "cache gc --store store --yes", code=0, words=("There is no folder",))
def a_receipt_of_a_folder_that_cannot_be(place: Place) -> None:
    place.finished()
    place.write("store/receipts/a.json", json.dumps({**RUN, "host": platform.node(), "folder": "/" + "a" * 4000}))


def _edited(place: Place) -> None:
    """A finished run whose recipe was edited, so that a plan looks for what it may be compared with."""
    place.finished()
    recipe = place.work / "small.toml"
    recipe.write_text(recipe.read_text().replace("steps = 6", "steps = 7"))


@hostile(ENTRIES, "plan small.toml --store store", code=0, words=("settings changed: train.steps",))
def records_beside_those_that_a_plan_compares_with(place: Place) -> None:
    _edited(place)
    place.write("store/train/cafecafecafecafecafe/zarr.json", '{"attributes": {"rarkit": {"recipe_name": ["a"], "format": "x"}}}')
    place.write("store/train/cafecafecafecafecaff/zarr.json", DEEP)


def _lock(name: str, content: str) -> None:
    """A lock that nobody can hold: it keeps no output that it lies in, or that it is said to read, from being used or removed."""

    def make(place: Place) -> None:
        place.finished()
        [output] = (place.work / "store/evaluate").iterdir()
        (output / "lock.json").write_text(content)

    argv = ("cache", "rm", "fit", "--store", "store", "--yes")
    ENTRIES.append(Entry(f"a_lock_{name}", make, argv, code=0, words=("removed fit",), unwanted=("waiting",)))


_lock("that_is_a_list", "[]")
_lock("that_is_nothing", "null")
_lock("with_a_process_that_is_a_table", '{"host": {"a": 1}, "pid": {}, "heartbeat": "soon"}')
_lock("that_is_deep", DEEP)
_lock("with_nothing_but_digits", '{"pid": ' + "9" * 100_000)
_lock("that_is_no_text", '{"host": "\\ud800", "pid": 1, "token": "\\u0000", "heartbeat": NaN}')
_lock("renewed_in_the_year_ten_billion", '{"host": "a", "pid": -1, "boot": "b", "token": "c", "since": 1e300, "heartbeat": 1e300}')


def _no_lock(name: str, put: Callable[[Path], object]) -> None:
    """In the place of a lock: nobody holds that, so it keeps no other output from being removed; its own names the cure."""

    def make(place: Place) -> None:
        place.finished()
        [output] = (place.work / "store/evaluate").iterdir()
        put(output / "lock.json")

    argv = ("cache", "rm", "fit", "--store", "store", "--yes")
    ENTRIES.append(Entry(f"{name}_for_a_lock", make, argv, code=0, words=("removed fit",)))
    argv = tuple(f"{AGAIN} --force evaluate".split())
    ENTRIES.append(Entry(f"{name}_for_the_lock_of_a_run", make, argv, code=2, words=("lock.json ", "Remove it.")))


_no_lock("a_pipe", os.mkfifo)
_no_lock("a_folder", Path.mkdir)
_no_lock("a_device", lambda path: path.symlink_to("/dev/zero"))
_no_lock("two_megabytes", lambda path: path.write_bytes(bytes(2**21)))


@hostile(ENTRIES, AGAIN, code=2, words=("metrics.json", "--force evaluate"))
def metrics_that_are_no_numbers(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    (output / "files/metrics.json").write_text('[{"name": 3, "value": "NaN"}]')


def _metrics(name: str, content: str) -> None:
    """With the digest of what is there, as somebody writes it who means harm."""

    def make(place: Place) -> None:
        place.finished()
        [output] = Store(str(place.work / "store")).outputs("evaluate")
        Path(output.path, "files/metrics.json").write_text(content)
        sha256 = {"metrics.json": hashlib.sha256(content.encode()).hexdigest()}
        output._folder.write_record(output.begun().changed(files={"metrics.json": len(content)}, sha256=sha256))

    words = ("metrics.json", "is damaged", "--force evaluate")
    ENTRIES.append(Entry(f"metrics_{name}", make, tuple(AGAIN.split()), code=2, words=words))


_metrics("that_are_deep", DEEP)
_metrics("that_are_a_list", '[{"name": 3, "value": "NaN"}]')
_metrics("of_which_one_is_text", '{"metrics": [{"name": "recall", "value": "high"}]}')
NEAREST = {"searched": 1, "training_images": 1, "of_the_classes": False, "distances": {}}
_metrics("without_distances", json.dumps({"metrics": [], "nearest": NEAREST}))


@hostile(ENTRIES, AGAIN, code=0, words=("report.html",))
def a_claim_of_a_folder_that_is_a_list(place: Place) -> None:
    (place.finished() / ".claim.json").write_text("[[]]")


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("tokens",))
def tokens_whose_header_is_a_list(place: Place) -> None:
    place.write("tokens/zarr.json", '{"attributes": {"rarkit": [1, 2]}, "zarr_format": 3, "node_type": "group"}')
    place.recipe('[train]\ntokens = "tokens"\n')
