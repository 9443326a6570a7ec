"""Local files are written whole or not at all, through no link that somebody planted, with the permissions of the umask."""

from __future__ import annotations

import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from rarkit.files.atomic import overwrite, replacing, rewriting, started, write_once, write_text
from rarkit.files.npz import write_npz
from rarkit.files.weights import write_tensors
from rarkit.rendering.animation import write_gif
from rarkit.rendering.png import write_png

IMAGES = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
WRITERS = {
    "a.txt": lambda path: write_text(path, "new"),
    "a.png": lambda path: write_png(Image.new("RGB", (3, 2)), path),
    "a.npz": lambda path: write_npz([IMAGES], np.zeros(1, np.int32), path),
    "a.gif": lambda path: write_gif(IMAGES, ["one"], (2, 2), np.arange(4), path),
    "a.bin": lambda path: write_tensors({"weight": torch.zeros(3)}, path, {}),
    "a.safetensors": lambda path: write_tensors({"weight": torch.zeros(3)}, path, {}),
}
writers = pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)


@pytest.fixture
def umask():
    """Sets the umask until the test ends."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@writers
def test_the_old_file_is_replaced_and_nothing_else_is_left(tmp_path, name, write):
    path = tmp_path / "deep" / "er" / name
    write(path)
    content = path.read_bytes()
    path.write_bytes(b"old")
    write(path)
    assert path.read_bytes() == content != b"old"
    assert list(path.parent.iterdir()) == [path]


@writers
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_those_that_the_umask_leaves(tmp_path, umask, name, write, mask):
    path = tmp_path / name
    path.write_bytes(b"old")
    path.chmod(0o640)
    umask(mask)
    write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@writers
def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path, name, write):
    victim, path = tmp_path / "victim", tmp_path / name
    victim.write_bytes(b"precious")
    path.symlink_to(victim)
    write(path)
    assert not path.is_symlink()
    assert path.stat().st_size > 0
    assert victim.read_bytes() == b"precious"


@writers
def test_a_planted_link_is_not_followed(tmp_path, monkeypatch, name, write):
    """Neither under names that are easily guessed, nor if somebody guessed the random one."""
    victim, path = tmp_path / "victim", tmp_path / "out" / name
    victim.write_bytes(b"precious")
    path.parent.mkdir()
    guesses = [f".{name}.partial", f"{name}.partial", f".{name}.tmp", f"{name}.tmp", ".rarkit-"]
    for guess in guesses:
        (path.parent / guess).symlink_to(victim)
    write(path)
    assert not path.is_symlink()
    assert victim.read_bytes() == b"precious"
    path.unlink()
    monkeypatch.setattr(secrets, "token_hex", lambda count: "guessed")
    planted = path.parent / ".rarkit-guessed"
    for target in (victim, tmp_path / "nothing there"):
        planted.symlink_to(target)
        with pytest.raises(Exception, match="File exists"):
            write(path)
        planted.unlink()  # it was left as it was
    assert victim.read_bytes() == b"precious"
    assert sorted(child.name for child in tmp_path.iterdir()) == ["out", "victim"]
    assert not path.exists()


@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
def test_a_failure_leaves_the_old_file_and_no_other(tmp_path, error, opened):
    def fail(path):
        if opened:
            with rewriting(path) as file:
                file.write(b"half")
                raise error
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    path = tmp_path / "a.txt"
    with pytest.raises(type(error)):
        fail(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        fail(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_replaced_leaves_nothing(tmp_path):
    (tmp_path / "folder" / "content").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "new")
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        write_text(tmp_path / "file" / "a.txt", "new")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["file", "folder"]


def test_of_two_writers_the_last_one_wins(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first:
        with replacing(path) as second:
            first.write_text("first, and longer")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first, and longer"
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_may_make_the_file_anew(tmp_path, umask):
    """Linkers unlink what lies under the name of their output; some libraries rename a file of their own to it."""
    with replacing(tmp_path / "kernels.so") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
        temporary.write_bytes(b"library")
    assert (tmp_path / "kernels.so").read_bytes() == b"library"
    assert stat.S_IMODE((tmp_path / "kernels.so").stat().st_mode) == 0o644
    assert len(list(tmp_path.iterdir())) == 1


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "a.txt", "0 … 9")
    assert (tmp_path / "a.txt").read_bytes() == "0 … 9".encode()
    # The name of a folder in Latin-1, as Python gives it.
    write_text(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == rb"caf\udce9"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_who_write_once_one_succeeds_and_nobody_reads_half(tmp_path, monkeypatch, links):
    if not links:

        def link(*names):
            raise PermissionError("no hard links on this file system")

        monkeypatch.setattr(os, "link", link)
    target = tmp_path / "folder/once"
    with ThreadPoolExecutor(8) as pool:
        wrote = list(pool.map(lambda text: write_once(target, text), map(str, range(8))))
    assert wrote.count(True) == 1
    assert target.read_text() == str(wrote.index(True))
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_not_taken_for_what_was_written_once(tmp_path, exists):
    victim, path = tmp_path / "victim", tmp_path / "once"
    path.symlink_to(victim)
    if exists:
        victim.write_text("precious")
    with pytest.raises(OSError, match="a link lies in the place of a file, remove it"):
        write_once(path, "new")
    assert victim.exists() == exists
    assert sorted(child.name for child in tmp_path.iterdir()) == ["once", "victim"][: 1 + exists]


def test_a_log_is_read_while_it_grows_and_replaces_a_link(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "folder/log"
    victim.write_bytes(b"precious")
    path.parent.mkdir()
    path.symlink_to(victim)
    with started(path) as file:
        file.write(b"one\n")
        file.flush()
        assert path.read_bytes() == b"one\n"
        assert not path.is_symlink()
    with started(path):
        assert path.read_bytes() == b""
    assert victim.read_bytes() == b"precious"


def test_what_is_overwritten_in_place_has_no_other_name(tmp_path):
    path, victim = tmp_path / "lock", tmp_path / "victim"
    with pytest.raises(FileNotFoundError):
        overwrite(path, b"new")
    path.write_bytes(b"old, and longer")
    number = path.stat().st_ino
    overwrite(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_ino == number
    victim.write_bytes(b"precious")
    for plant in (os.symlink, os.link):
        path.unlink()
        plant(victim, path)
        with pytest.raises(OSError, match="lock"):
            overwrite(path, b"new")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="lock"):
        overwrite(path, b"new")
    assert victim.read_bytes() == b"precious"
