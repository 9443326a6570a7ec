"""Links at every name that the commands write: what they lead to stays as it is. The names are those that a first round wrote."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.hostile.entry import SMALL
from tests.processes import call, rarkit

COMMANDS = (
    "run small.toml --store store --runs runs --device cpu --set sample.npz=true",
    "sample runs/small --class 0 -n 1 -o grid.png --device cpu",
    "sample runs/small --class 0 -n 1 -o arrays.npz --gif drawn.gif --device cpu",
    "sample runs/small --class 0 -n 1 -o pictures/ --device cpu",
    "export runs/small",
    "export runs/small --merged -o model.bin",
    "tokens export store/{tokenize} lines.jsonl.gz",
    "tokens import lines.jsonl.gz imported --grid 2x2 --codebook-size 5 --classes 10",
    "orders show raster --grid 4x4 --png order.png",
    "cache verify --store store",
    "cache rm fit --store store --yes",
    "cache gc --store store --yes",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
REFUSED = re.compile(r"(store/\w+/\w+|imported)/(lock|zarr)\.json|runs/\.rarkit-runs|runs/small/\.claim\.json")
"""Files that are read first, and refused if they are not what rarkit wrote: tests/hostile/links.py has them."""
RANDOM = re.compile(r"\.rarkit-\w{16}|probe|store/receipts/|tmp/")
"""Names that nobody can foresee, and those in the folder for temporary files, where nobody may replace another's."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for folders by their descriptors")


def carried_out(folder: Path) -> None:
    """Runs the commands in a folder; leaves their exit codes, what was written and how it was opened in ``events.json``."""
    written, opened, codes = set[str](), list[tuple[str, int]](), []

    def note(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[2] & WRITING and not os.path.isdir(arguments[0]):
            # A file without a name is opened as its folder.
            opened.append((arguments[0], arguments[2]))
        targets = {"os.rename": (1, 3), "os.link": (1, 3), "os.remove": (0, 1), "os.mkdir": (0, 2)}
        if event in targets:
            path, descriptor = (arguments[index] for index in targets[event])
            above = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else ""
            written.add(os.path.abspath(os.path.join(above, os.fspath(path))))

    os.chdir(folder)
    os.environ.update(PATH=str(folder), HOME=str(folder / "home"), XDG_CACHE_HOME=str(folder / "home"), TMPDIR=str(folder / "tmp"))
    (folder / "tmp").mkdir()
    sys.addaudithook(note)
    for command in COMMANDS:
        [tokenize] = [*folder.glob("store/tokenize/*")] or [folder]
        try:
            rarkit(*shlex.split(command.replace("{tokenize}", f"tokenize/{tokenize.name}")))
        except SystemExit as ended:
            codes.append(ended.code or 0)
    events = {"codes": codes, "written": sorted(written), "opened": opened}
    (folder.parent / f"{folder.name}.json").write_text(json.dumps(events))


def round_in(folder: Path) -> dict:
    (folder / "small.toml").write_bytes(SMALL.read_bytes())
    ended = call(folder.parent, carried_out, folder)
    assert ended.returncode == 0, ended.stderr
    events = json.loads((folder.parent / f"{folder.name}.json").read_text())
    assert events["codes"] == [0] * len(COMMANDS), ended.stderr
    return events


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The folder of a round without links, and what was written in it."""
    folder = tmp_path_factory.mktemp("first") / "work"
    folder.mkdir()
    return folder, round_in(folder)


def test_every_file_is_opened_for_writing_in_the_one_safe_way(first):
    """Python tells of each file that it opens; libraries that open files themselves are given one of rarkit's."""
    _, events = first
    # Python keeps what it compiles when it imports a module for the first time.
    opened = [(path, flags) for path, flags in events["opened"] if path != os.devnull and "__pycache__" not in path]
    assert [path for path, flags in opened if not flags & os.O_NOFOLLOW] == []
    assert [path for path, flags in opened if flags & os.O_CREAT and not flags & os.O_EXCL] == []
    assert len(events["opened"]) > 50


def test_what_planted_links_lead_to_stays_as_it_is(first, tmp_path):
    folder, events = first
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"small.toml"}
    names = left | {os.path.relpath(path, folder) for path in events["written"] if path.startswith(f"{folder}/")}
    folders = {str(above) for name in names for above in Path(name).parents} | {"tmp", "home"}
    names = {name for name in names - folders if not RANDOM.search(name) and not REFUSED.fullmatch(name)}
    assert len(names) > 60
    assert {"runs/small/log.jsonl", "runs/small/report.html", "pictures/000-0-0000.png", "model.bin"} <= names, sorted(names)
    place, outside = tmp_path / "work", tmp_path / "outside"
    outside.mkdir()
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        canary = outside / name.replace("/", "_")
        canary.write_text("canary")
        (place / name).symlink_to(canary)
    round_in(place)
    assert {path.read_text() for path in outside.iterdir()} == {"canary"}
    assert len([*outside.iterdir()]) == len(names)
    assert [name for name in names & left if (place / name).is_symlink()] == []
