"""What the tests of hostile inputs share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hostile.entry import SMALL
from tests.processes import call, rarkit


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A working folder in which small.toml was run."""
    return finished_run(tmp_path_factory.mktemp("run"))


def finished_run(folder: Path) -> Path:
    (folder / "small.toml").write_bytes(SMALL.read_bytes())
    ended = call(folder, in_folder, folder, "run", "small.toml", "--store", "store", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    return folder


def in_folder(folder: Path, *arguments: object) -> None:
    """The command ``rarkit`` in a folder, where there is no compiler."""
    os.chdir(folder)
    os.environ["PATH"] = str(folder)
    rarkit(*arguments)
