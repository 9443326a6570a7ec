"""What an entry of the corpus is: hostile files, made by code, and what the command that a user runs on them must do.

One module a kind has the entries:

    ENTRIES: list[Entry] = []

    @hostile(ENTRIES, "validate recipe.toml", code=2, words=("recipe.toml", "circular extends"))
    def recipes_that_extend_each_other(place: Place) -> None:
        place.write("recipe.toml", 'extends = "other.toml"')
        place.write("other.toml", 'extends = "recipe.toml"')
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL = Path(__file__).parents[1] / "data/small.toml"


@dataclass(frozen=True)
class Place:
    """Where an entry makes its files."""

    folder: Path
    run: Path | None = None
    """A working folder in which small.toml was run, with ``store`` and ``runs/small``."""
    address: str = ""
    """An HTTP address of this machine that takes calls and never answers."""

    @property
    def work(self) -> Path:
        """The working folder of the command, all that it may read and write."""
        return self.folder / "work"

    @property
    def outside(self) -> Path:
        """A folder of canaries: ``secret.txt`` and ``folder/secret.txt``. An entry may add others."""
        return self.folder / "outside"

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the working folder, with the folders that it lies in."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def recipe(self, more: str = "", name: str = "recipe.toml") -> Path:
        """A recipe that is small.toml, with further lines."""
        shutil.copy(SMALL, self.work / "small.toml")
        return self.write(name, f'extends = "small.toml"\n{more}')

    def finished(self) -> Path:
        """The recipe small.toml in the working folder, its store and its finished run: the folder of the run."""
        assert self.run is not None
        for name in ("small.toml", "store", "runs"):
            copy = shutil.copytree if (self.run / name).is_dir() else shutil.copy
            copy(self.run / name, self.work / name)
        for path in [*self.work.glob("runs/small/*.json"), *self.work.glob("store/receipts/*.json")]:
            path.write_text(path.read_text().replace(str(self.run), str(self.work)))
        return self.work / "runs/small"

    def plugin(self, name: str, code: str) -> None:
        """An installed distribution whose entry point is a module of this name."""
        self.write(f"site/{name}.py", code)
        self.write(f"site/{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        self.write(f"site/{name}-1.0.dist-info/entry_points.txt", f"[rarkit]\n{name} = {name}\n")


@dataclass(frozen=True)
class Entry:
    """A hostile input, and what the command that a user runs on it must do."""

    name: str
    make: Callable[[Place], object]
    """Makes the files."""
    argv: tuple[str, ...]
    """The command, without ``rarkit``; ``{outside}``, ``{work}`` and ``{address}`` stand for those of the place, and
    ``{fit}`` for the output of a stage in its store, as ``fit/FINGERPRINT``."""
    code: int
    """Its exit code."""
    words: tuple[str, ...] = ()
    """What its output has; ``{…}`` as in ``argv``."""
    unwanted: tuple[str, ...] = ()
    """What its output has not, besides tracebacks and control characters."""
    reads: tuple[str, ...] = ()
    """Paths in ``outside`` that the user asked it to read."""
    calls: bool = False
    """Whether the user asked it to call ``Place.address``."""
    terminal: bool = False
    """Whether it prints to a terminal, which is sent control sequences that pipes are spared."""
    slow: bool = False
    """Whether it waits for seconds, and so is left to benchmarks/hostile.py."""
    after: Callable[[Place], object] | None = field(default=None)
    """Asserts what must be so in the place afterwards."""


Maker = Callable[[Place], object]


def hostile(entries: list[Entry], command: str, **promised: Any) -> Callable[[Maker], Maker]:
    """Decorates the function that makes an entry's files; its name is the entry's. ``promised`` are the other fields."""

    def add(make: Maker) -> Maker:
        entries.append(Entry(make.__name__, make, tuple(shlex.split(command)), **promised))
        return make

    return add
