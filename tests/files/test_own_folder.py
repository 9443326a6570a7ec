"""Below a folder of its own, rarkit writes and removes through no link, whatever is planted in whatever place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.errors import StoreError
from rarkit.files.own_folder import OwnFolder

OPERATIONS = {
    "pipe_file": lambda folder, path: folder.pipe_file(path, b"new"),
    "create": lambda folder, path: folder.pipe_file(path, b"new", mode="create"),
    "overwrite": lambda folder, path: folder.overwrite(path, b"new"),
    "makedirs": lambda folder, path: folder.makedirs(path, exist_ok=True),
    "rm_file": lambda folder, path: folder.rm_file(path),
    "rmdir": lambda folder, path: folder.rmdir(path),
}
OUTSIDE = ["file", "folder", "folder/b", "folder/b/c", "empty"]


def outside(folder: Path) -> None:
    (folder / "folder/b").mkdir(parents=True)
    (folder / "folder/b/c").write_bytes(b"precious")
    (folder / "file").write_bytes(b"precious")
    (folder / "empty").mkdir()


def state(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@given(
    operation=st.sampled_from(sorted(OPERATIONS)),
    parts=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
    planted=st.integers(0, 3),
    target=st.sampled_from([*OUTSIDE, "nothing", "folder/nothing"]),
    relative=st.booleans(),
)
@settings(max_examples=150)
def test_nothing_is_changed_behind_a_link(operation, parts, planted, target, relative):
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        outside(place / "outside")
        before = state(place / "outside")
        link = place.joinpath("store", *parts[: planted + 1])
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(place / "outside" / target, link.parent) if relative else place / "outside" / target)
        last = planted + 1 >= len(parts)
        path = str(place.joinpath("store", *parts))
        replaced = last and operation in ("pipe_file", "rm_file")
        if replaced:
            OPERATIONS[operation](OwnFolder(str(place / "store")), path)
        else:
            with pytest.raises((OSError, StoreError)):
                OPERATIONS[operation](OwnFolder(str(place / "store")), path)
        assert state(place / "outside") == before
        assert link.is_symlink() != replaced
        assert (Path(path).is_file() and Path(path).read_bytes() == b"new") == (last and operation == "pipe_file")


@pytest.mark.parametrize("mode", ["overwrite", "create"])
def test_the_folder_itself_may_be_a_link(tmp_path, mode):
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to("disk")
    folder = OwnFolder(str(tmp_path / "store"))
    folder.pipe_file(f"{tmp_path}/store/a/b", b"new", mode=mode)
    assert (tmp_path / "disk/a/b").read_bytes() == b"new"
    folder.overwrite(f"{tmp_path}/store/a/b", b"x")
    assert (tmp_path / "disk/a/b").read_bytes() == b"x"
    folder.rm_file(f"{tmp_path}/store/a/b")
    folder.rmdir(f"{tmp_path}/store/a")
    folder.makedirs(f"{tmp_path}/store", exist_ok=True)
    assert list((tmp_path / "disk").iterdir()) == []


def test_the_message_says_which_link_and_what_to_do(tmp_path):
    (tmp_path / "store/a").mkdir(parents=True)
    (tmp_path / "store/a/b").symlink_to(tmp_path)
    with pytest.raises(StoreError, match=r"store/a/b is a link, and nothing is written through links in a store\. Remove it"):
        OwnFolder(str(tmp_path / "store")).pipe_file(f"{tmp_path}/store/a/b/c/d", b"new")


@pytest.mark.parametrize("operation", ["pipe_file", "create", "makedirs", "rm_file"])
@pytest.mark.parametrize("name", ["../file", "a/../../file"])
def test_no_name_leads_out(tmp_path, operation, name):
    """The names of arrays come from records, which others may have written."""
    (tmp_path / "store/a").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(StoreError, match="leads out of"):
        OPERATIONS[operation](OwnFolder(str(tmp_path / "store")), f"{tmp_path}/store/{name}")
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_files_are_written_whole_or_not_at_all(tmp_path):
    folder, path = OwnFolder(str(tmp_path)), str(tmp_path / "a/b")
    folder.pipe_file(path, b"old")
    with pytest.raises(TypeError):
        folder.pipe_file(path, "text")
    with pytest.raises(FileExistsError):
        folder.pipe_file(path, b"new", mode="create")
    assert [(child.name, child.read_bytes()) for child in (tmp_path / "a").iterdir()] == [("b", b"old")]
    with pytest.raises(FileNotFoundError):
        folder.rm_file(str(tmp_path / "a/c/d"))
    with pytest.raises(FileExistsError):
        folder.makedirs(str(tmp_path / "a"))
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/b"]
