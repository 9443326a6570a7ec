"""Links that somebody planted in a store: what they lead to stays as it is, whatever is written."""

from __future__ import annotations

import os

import numpy as np
import pytest

from rarkit.cache.lock import Times
from rarkit.cache.lock_file import LockFile
from rarkit.cache.output_lock import OutputLock
from rarkit.cache.receipts import write_receipt
from rarkit.cache.store import Store, output_at
from rarkit.errors import StoreError

ROWS = np.arange(70, dtype=np.uint16).reshape(10, 7)


@pytest.fixture
def victim(tmp_path):
    """A folder with files under the names that rarkit uses."""
    folder = tmp_path / "victim"
    for name in ("zarr.json", "note.json", "c/0/0", "c/1/0", "files/note.json", "numbers/zarr.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    yield folder
    left = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert left == dict.fromkeys(["zarr.json", "note.json", "c/0/0", "c/1/0", "files/note.json", "numbers/zarr.json"], "precious")


def nothing():
    """Plants no link."""


def write(output, then=nothing, before=nothing):
    with output.writing({"identity": {}}):
        before()
        output.create("numbers", ROWS.shape, ROWS.dtype, 3)
        output.write_block(0, numbers=ROWS[:3])
        then()
        for block in output.missing_blocks(["numbers"]):
            output.write_block(block, numbers=ROWS[slice(*output.block_rows("numbers", block))])
        output.write_file("note.json", b"{}")
        output.finish(["note.json"])


@pytest.mark.parametrize("place", ["fit", "fit/f00d", "fit/f00d/numbers", "fit/f00d/numbers/c", "fit/f00d/files", "receipts"])
@pytest.mark.parametrize("to_nothing", [False, True])
def test_links_in_the_place_of_folders_are_refused(tmp_path, victim, place, to_nothing):
    store, link = Store(str(tmp_path / "store")), tmp_path / "store" / place

    def plant():
        if link.is_dir():
            os.rename(link, tmp_path / "moved")
        link.symlink_to(victim / "nothing" if to_nothing else victim)

    link.parent.mkdir(parents=True, exist_ok=True)
    begun = place.count("/") > 1
    refused = pytest.raises(StoreError, match="is a link, and nothing is written through links in a store")
    if not begun:
        plant()
    with refused:
        write_receipt(store, "run", {}) if place == "receipts" else write(store.output("fit", "f00d"), plant if begun else nothing)
    assert link.is_symlink()
    assert not (victim / "nothing").exists()


@pytest.mark.parametrize("place", ["zarr.json", "numbers/zarr.json", "numbers/c/0/0", "numbers/c/1/0", "files/note.json"])
@pytest.mark.parametrize("to_nothing", [False, True])
def test_links_in_the_place_of_files_are_replaced(tmp_path, victim, place, to_nothing):
    output = Store(str(tmp_path / "store")).output("fit", "f00d")
    link = tmp_path / "store/fit/f00d" / place

    def plant():
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(victim / ("nothing" if to_nothing else "zarr.json"))
        output._folder.forget_sizes()

    first = place == "numbers/zarr.json"
    write(output, **{"before" if first else "then": plant})
    output.refresh()
    assert not link.is_symlink()
    assert output.verify() is None
    assert not (victim / "nothing").exists()


@pytest.mark.parametrize("to_nothing", [False, True])
def test_a_link_in_the_place_of_a_lock_is_refused_at_once(tmp_path, victim, to_nothing):
    output = Store(str(tmp_path / "store")).output("fit", "f00d")
    link = tmp_path / "store/fit/f00d/lock.json"
    link.parent.mkdir(parents=True)
    link.symlink_to(victim / ("nothing" if to_nothing else "note.json"))
    with pytest.raises(StoreError, match=r"lock\.json is a link, and no lock is taken through one\. Remove it\."):  # noqa: SIM117
        with output.writing({"identity": {}}, wait=True):
            pass
    assert not (victim / "nothing").exists()


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_lock_is_not_renewed_through_a_link(tmp_path, victim, plant):
    store = Store(str(tmp_path / "store"))
    lock = LockFile(store.filesystem, f"{store.root}/fit/f00d/lock.json", 1.0)
    assert lock.create(b"mine")
    lock.write(b"still mine")
    assert lock.read() == b"still mine"
    lock.remove()
    plant(victim / "note.json", lock.path)
    with pytest.raises(OSError, match=r"lock\.json"):
        lock.write(b"still mine")
    with pytest.raises(OSError, match=r"lock\.json"):
        lock.exchange(b"precious", b"mine", 60.0)
    lock.remove()
    assert os.listdir(tmp_path / "store/fit/f00d") == []


@pytest.mark.parametrize("to_nothing", [False, True])
def test_a_link_in_the_place_of_a_claim_to_a_lock_keeps_nobody_out(tmp_path, victim, monkeypatch, to_nothing):
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.01, free=0.05))
    output = Store(str(tmp_path / "store")).output("fit", "f00d")
    lock = LockFile(output.filesystem, f"{output.path}/lock.json", 1.0)
    assert lock.create(b"of a process that is gone")
    claims = []

    def plant():
        # Its name comes of what is in the lock.
        if not claims:
            claims.append(os.path.join(output.path, "lock.json.9b7daf58a42bc050"))
            os.symlink(victim / ("nothing" if to_nothing else "note.json"), claims[0])

    with output.writing({"identity": {}}, wait=True, while_waiting=plant):
        output.write_array("numbers", ROWS)
        output.finish()
    assert not (victim / "nothing").exists()


def test_a_store_and_a_token_store_may_be_links_themselves(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("store", "tokens"):
        (tmp_path / "disk" / name).mkdir()
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    store = Store(str(tmp_path / "store"))
    store.check_writable()
    for output in (store.output("fit", "f00d"), output_at(str(tmp_path / "tokens"), "tokenize")):
        write(output)
        assert output.verify() is None
    assert (tmp_path / "disk/store/fit/f00d/zarr.json").is_file()
    assert (tmp_path / "disk/tokens/zarr.json").is_file()
    store.remove(store.output("fit", "f00d"))
    assert not (tmp_path / "disk/store/fit/f00d").exists()
