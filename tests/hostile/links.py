"""Links planted where rarkit writes and removes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
AGAIN = "run small.toml --store store --runs runs --device cpu"
EVALUATE = f"{AGAIN} --force evaluate"


def _to_the_secret(place: Place, path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(place.outside / "secret.txt")


RESULTS = ("log.jsonl", "receipt.json", "metrics.json", "samples.png", "report.html")


def _are_files(place: Place) -> None:
    assert not [name for name in RESULTS if (place.work / "runs/small" / name).is_symlink()]


@hostile(ENTRIES, AGAIN, code=0, reads=("secret.txt",), after=_are_files)
def links_in_the_place_of_results(place: Place) -> None:
    folder = place.finished()
    for name in RESULTS:
        _to_the_secret(place, folder / name)


@hostile(ENTRIES, AGAIN, code=0)
def links_under_the_names_of_unfinished_files(place: Place) -> None:
    folder = place.finished()
    for name in RESULTS:
        (folder / name).unlink()
        _to_the_secret(place, folder / f".{name}.partial")


@hostile(ENTRIES, EVALUATE, code=0)
def a_link_under_the_name_of_the_probe_of_a_store(place: Place) -> None:
    place.finished()
    _to_the_secret(place, place.work / "store/.rarkit-probe")
    _to_the_secret(place, place.work / "runs/.rarkit-probe")


@hostile(ENTRIES, EVALUATE, code=2, words=("lock.json is a link", "Remove it."), reads=("secret.txt",))
def a_link_in_the_place_of_a_lock(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    _to_the_secret(place, output / "lock.json")


@hostile(ENTRIES, EVALUATE, code=2, words=("lock.json is a link", "Remove it."))
def a_link_to_nothing_in_the_place_of_a_lock(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    (output / "lock.json").symlink_to(place.outside / "nothing")


@hostile(ENTRIES, EVALUATE, code=0, reads=("secret.txt",))
def a_link_in_the_place_of_a_record(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    _to_the_secret(place, output / "zarr.json")


NOT_THROUGH = "is a link, and nothing is written through links in a store. Remove it"


@hostile(ENTRIES, AGAIN, code=2, words=("store/evaluate", NOT_THROUGH), reads=("folder",))
def a_link_in_the_place_of_the_folder_of_a_stage(place: Place) -> None:
    place.finished()
    shutil.rmtree(place.work / "store/evaluate")
    (place.work / "store/evaluate").symlink_to(place.outside / "folder")


@hostile(
    ENTRIES, EVALUATE, code=2, words=("runs/small is a link, and results are written through none.", "--runs"), reads=("folder",)
)
def a_link_in_the_place_of_the_folder_of_a_run(place: Place) -> None:
    shutil.rmtree(place.finished())
    (place.work / "runs/small").symlink_to(place.outside / "folder")


@hostile(
    ENTRIES, EVALUATE, code=2, words=("runs/.rarkit-runs", "a link lies in the place of a file, remove it"), reads=("secret.txt",)
)
def a_link_in_the_place_of_the_number_of_a_folder_of_runs(place: Place) -> None:
    place.finished()
    _to_the_secret(place, place.work / "runs/.rarkit-runs")


@hostile(ENTRIES, EVALUATE, code=2, words=("runs/small/.claim.json", "a link lies in the place of a file, remove it"))
def a_link_to_nothing_in_the_place_of_the_claim_to_a_folder(place: Place) -> None:
    folder = place.finished()
    (folder / "receipt.json").unlink()
    (folder / ".claim.json").symlink_to(place.outside / "nothing")


@hostile(ENTRIES, EVALUATE, code=0, after=_are_files)
def a_store_and_a_folder_of_runs_that_are_links(place: Place) -> None:
    place.finished()
    for name in ("store", "runs"):
        shutil.move(place.work / name, place.work / f"disk-{name}")
        (place.work / name).symlink_to(f"disk-{name}")


@hostile(ENTRIES, EVALUATE, code=0, reads=("secret.txt",))
def links_in_the_place_of_chunks_and_files(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/evaluate").iterdir()
    for path in [path for path in output.rglob("*") if path.is_file() and path.name != "zarr.json"]:
        _to_the_secret(place, path)


@hostile(ENTRIES, AGAIN, code=0, reads=("secret.txt",))
def a_link_in_the_place_of_a_receipt_in_the_store(place: Place) -> None:
    place.finished()
    for path in (place.work / "store/receipts").iterdir():
        _to_the_secret(place, path)


@hostile(ENTRIES, "sample runs/small --class 0 -o out.png --device cpu", code=0)
def a_link_in_the_place_of_a_picture(place: Place) -> None:
    place.finished()
    _to_the_secret(place, place.work / "out.png")


@hostile(ENTRIES, "export runs/small -o out.safetensors", code=0)
def a_link_in_the_place_of_exported_weights(place: Place) -> None:
    place.finished()
    _to_the_secret(place, place.work / "out.safetensors")


@hostile(ENTRIES, "tokens export store/{tokenize} out.jsonl", code=0)
def a_link_in_the_place_of_exported_tokens(place: Place) -> None:
    place.finished()
    _to_the_secret(place, place.work / "out.jsonl")


@hostile(ENTRIES, "cache rm {fit} --store store --yes", code=2, words=("has no output",))
def an_output_to_remove_that_is_a_link(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/fit").iterdir()
    shutil.rmtree(output)
    output.symlink_to(place.outside / "folder")


@hostile(ENTRIES, "cache rm {fit} --store store --yes", code=0)
def links_in_an_output_to_remove(place: Place) -> None:
    place.finished()
    [output] = (place.work / "store/fit").iterdir()
    (output / "more").symlink_to(place.outside / "folder")
    os.symlink(place.outside / "secret.txt", output / "file")
