"""Records, receipts, locks and the like with content of a stranger's."""

from __future__ import annotations

import json

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
SAMPLE = "sample runs/small --class 0 -o a.png --device cpu"
AGAIN = "run small.toml --store store --runs runs --device cpu"
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
_receipt_with("whose_recipe_is_a_list", recipe=[1])
_receipt_with("whose_store_is_a_table", store={"a": 1})


@hostile(ENTRIES, "cache gc --store store --yes", code=2, words=("receipt", "damaged"))
def a_receipt_in_a_store_that_spoils_the_list(place: Place) -> None:
    place.finished()
    place.write("store/receipts/a.json", '{"format": 3, "stages": [1, "a", null], "variant": 7}')


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
    def make(place: Place) -> None:
        place.finished()
        [output] = (place.work / "store/evaluate").iterdir()
        (output / "lock.json").write_text(content)

    argv = tuple(f"{AGAIN} --force evaluate --no-wait".split())
    ENTRIES.append(Entry(f"a_lock_{name}", make, argv, code=2, words=("lock",)))


_lock("that_is_a_list", "[]")
_lock("that_is_nothing", "null")
_lock("with_a_process_that_is_a_table", '{"host": {"a": 1}, "pid": {}, "heartbeat": "soon"}')
_lock("renewed_in_the_year_ten_billion", '{"host": "a", "pid": -1, "boot": "b", "token": "c", "since": 1e300, "heartbeat": 1e300}')


@hostile(ENTRIES, AGAIN, code=2, words=("metrics.json", "--force evaluate"))
def metrics_that_are_no_numbers(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    (output / "files/metrics.json").write_text('[{"name": 3, "value": "NaN"}]')


@hostile(ENTRIES, AGAIN, code=0, words=("report.html",))
def a_claim_of_a_folder_that_is_a_list(place: Place) -> None:
    (place.finished() / ".claim.json").write_text("[[]]")


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("tokens",))
def tokens_whose_header_is_a_list(place: Place) -> None:
    place.write("tokens/zarr.json", '{"attributes": {"rarkit": [1, 2]}, "zarr_format": 3, "node_type": "group"}')
    place.recipe('[train]\ntokens = "tokens"\n')
