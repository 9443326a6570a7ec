"""Files of strangers: pipes, sockets, devices and endless files are refused at once, in one line, by all that reads files."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rarkit.cache.lock_file import LockFile
from rarkit.cache.receipts import receipts
from rarkit.cache.run_folders import read_receipt
from rarkit.cache.store import Store
from rarkit.cache.token_records import token_files
from rarkit.errors import DatasetError, StoreError, UserError, WeightsError
from rarkit.files.locations import filesystem_of
from rarkit.files.npz import opened
from rarkit.files.regular import open_on, open_regular, read_on, read_regular
from rarkit.files.weights import checksum, read_tensors
from rarkit.pipeline.kept_receipts import receipt_name
from rarkit.recipe.load import load_recipe

SPECIAL = ("pipe", "socket", "device", "link to a pipe", "link to a device")


@pytest.fixture
def special(tmp_path, monkeypatch):
    """Makes what is no regular file, under a name of its own."""
    monkeypatch.chdir(tmp_path)  # the name of a socket is short

    def make(kind: str, name: str) -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(name)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(name)
        elif kind == "link to a pipe":
            os.mkfifo(f"{name}.pipe")
            os.symlink(os.path.abspath(f"{name}.pipe"), name)
        else:
            os.symlink("/dev/zero", name)
        return name

    return make


READERS = {
    "a.toml": load_recipe,
    "a.npz": lambda name: opened(name).__enter__(),
    "a.pt": checksum,
    "b.pt": lambda name: read_tensors(Path(name)),
    "a.safetensors": checksum,
    "b.safetensors": lambda name: read_tensors(Path(name)),
    "a.jsonl": lambda name: token_files([name]),
    "a.jsonl.gz": lambda name: token_files([name]),
    "a.tar": lambda name: filesystem_of(f"zip://inner::{name}"),
    "store": Store,
    "run/receipt.json": lambda name: read_receipt(Path(name).parent),
    "store2/receipts/a.json": lambda name: receipts(Store("store2")),
    "store3/train/cafe/lock.json": lambda name: LockFile(Store("store3").filesystem, os.path.abspath(name), 1.0).read(),
    "runs/.rarkit-runs": lambda name: receipt_name(Path("runs/small")),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_by_every_reader(special, kind):
    for name, read in READERS.items():
        place = special(kind, name)
        with pytest.raises(UserError, match=r"is (a named pipe|a socket|a device), not a regular file\.") as refused:
            read(place)
        assert "\n" not in str(refused.value)


def test_regular_files_are_read_through_links_and_within_their_bound(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        path = str(tmp_path / name)
        assert read_regular(path, 5) == read_on(*filesystem_of(path), 5) == b"12345"
        with open_on(*filesystem_of(path)) as file:
            assert file.read() == b"12345"
        with pytest.raises(WeightsError, match=r"has 5 bytes, where at most 4 bytes are read\. Check that it is the right file\.$"):
            read_regular(path, 4, raising=WeightsError)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_remote_files_have_the_bound_too():
    filesystem, path = filesystem_of("memory://some/file")
    filesystem.pipe_file(path, b"12345")
    assert read_on(filesystem, path, 5) == b"12345"
    with pytest.raises(StoreError, match="more than 4 bytes"):
        read_on(filesystem, path, 4, raising=StoreError)


def test_files_without_a_true_size_have_the_bound_too():
    if not os.path.exists("/proc/self/status"):
        pytest.skip("there is no /proc here")
    with pytest.raises(DatasetError, match="has more than 10 bytes"):
        read_regular("/proc/self/status", 10)
