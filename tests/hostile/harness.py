"""Runs a command on files that mean harm, and says what of what was promised did not hold.

The command runs in a process of its own under limits of memory and time. Beside its working folder lie canaries: files that no
command has any business with, and an address that must not be called. ``entry.py`` says what an entry is.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from tests.hostile.entry import Entry, Place

ROOT = Path(__file__).parents[2]
KINDS = (
    "addresses",
    "links",
    "decoders",
    "bundles",
    "tokenizers",
    "printing",
    "records",
    "checkpoints",
    "damages",
    "recipes",
    "plugins",
    "kernels",
)
"""The modules beside this one that have entries, by what is hostile."""
MEMORY = 2 << 30
"""Bytes of data that a process may ask for: more is refused to it."""
PEAK = 1 << 30
"""Bytes that it may hold at any moment, libraries included: more is a complaint."""
PROCESSOR_SECONDS = 10
"""Processor time that it may use; a busy machine does not count."""
HANGS_AFTER = 40.0
"""Seconds after which a process is killed that waits for something that never comes."""
LONGEST_MESSAGE = 3
"""Lines of an error message."""
SECRET = "canary-5b1e0c7a9d"
"""Content of the canaries: if it is printed or copied, they were read."""
LONG_AGO = 1_000_000_000
"""When canaries were last read and written, in seconds since 1970. With equal times, the next read is noted on all file systems."""
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
"""What may not be printed: control characters but for ends of lines and tabs, and what turns the direction of text."""
STYLING = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[hl]|\x1b\\[2K|\x1b\\[1A|\r")
"""What rarkit itself sends to a terminal: colours, and the lines of progress that it writes over."""


def corpus(kinds: Sequence[str] = KINDS) -> dict[str, Entry]:
    """All entries, or those of some kinds, under the names of their kind and their own."""
    listed = [(f"{kind}/{entry.name}", entry) for kind in kinds for entry in import_module(f"tests.hostile.{kind}").ENTRIES]
    names = dict(listed)
    assert len(names) == len(listed), "two entries of one name"
    return names


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (-N for signal N), what it printed, what it took."""

    code: int
    stdout: str
    stderr: str
    peak: int
    """Bytes that it held at most."""
    processor_seconds: float
    seconds: float
    complaints: tuple[str, ...]
    """What was promised and did not hold."""


def judged(name: str, folder: Path, run: Path | None, *, fresh: bool = False) -> Ended:
    """Makes an entry's files in ``folder`` and runs its command there, forked from this process or as a fresh ``python -m rarkit``.

    Call it in a process with one thread.
    """
    # Each entry is judged in a process of its own, which need not import those of other kinds.
    entry = corpus([name.partition("/")[0]])[name]
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = Place(folder, run, f"http://127.0.0.1:{server.getsockname()[1]}")
        for canary in (place.outside / "secret.txt", place.outside / "folder/secret.txt"):
            canary.parent.mkdir(parents=True)
            canary.write_text(SECRET)
        (place.work / "bin").mkdir(parents=True)
        entry.make(place)
        before = _canaries(place, entry.reads)
        ended = _carried_out(place, entry, fresh)
        complaints = [*_of_the_output(place, entry, ended), *_of_the_canaries(place, before, entry.reads)]
        server.setblocking(False)
        if not entry.calls and _was_called(server):
            complaints.append("it called an address")
    if entry.after is not None:
        try:
            entry.after(place)
        except Exception as error:
            complaints.append(f"afterwards: {error or traceback.format_exc(limit=-1)}")
    return Ended(**ended, complaints=tuple(complaints))


def judged_into(target: Path, *arguments: Any, **options: Any) -> None:
    """``judged``, with the result as JSON in a file: for a process of its own."""
    target.write_text(json.dumps(vars(judged(*arguments, **options))))


def _filled(place: Place, texts: Sequence[str]) -> list[str]:
    values = {"{outside}": str(place.outside), "{work}": str(place.work), "{address}": place.address}
    for output in place.work.glob("store/*/*"):
        values[f"{{{output.parent.name}}}"] = f"{output.parent.name}/{output.name}"
    return [re.sub(r"{\w+}", lambda match: values.get(match.group(), match.group()), text) for text in texts]


def _carried_out(place: Place, entry: Entry, fresh: bool) -> dict[str, Any]:
    printed, terminal = [place.folder / "stdout", place.folder / "stderr"], os.openpty() if entry.terminal else None
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(place, entry, printed, terminal, fresh)
    shown = b""
    if terminal is not None:
        os.close(terminal[1])
        os.set_blocking(terminal[0], False)
    while True:
        # Read before the child is asked for: what it printed last is there when it has ended.
        process, status, usage = os.wait4(child, os.WNOHANG)
        with _nothing_more():
            while terminal is not None and (piece := os.read(terminal[0], 1 << 16)):
                shown += piece
        if process:
            break
        if time.monotonic() - began > HANGS_AFTER:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    if terminal is not None:
        os.close(terminal[0])
    stdout, stderr = (path.read_text(errors="surrogateescape") if path.exists() else "" for path in printed)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stdout": stdout + shown.decode(errors="surrogateescape"),
        "stderr": stderr,
        "peak": usage.ru_maxrss * 1024,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "seconds": time.monotonic() - began,
    }


@contextmanager
def _nothing_more() -> Iterator[None]:
    """A terminal with nothing to read raises one error, one whose other end is closed another."""
    try:
        yield
    except OSError:
        return


def _child(place: Place, entry: Entry, printed: Sequence[Path], terminal: tuple[int, int] | None, fresh: bool) -> NoReturn:
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for descriptor, path in zip((1, 2), printed, strict=True):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if terminal is None else terminal[1], descriptor)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        os.chdir(place.work)
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            # Of other tests, which have a server of their own.
            del os.environ[name]
        os.environ.update(environment(place))
        resource.setrlimit(resource.RLIMIT_CPU, (2 * PROCESSOR_SECONDS, 2 * PROCESSOR_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        arguments = _filled(place, entry.argv)
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "rarkit", *arguments])
        from rarkit.cli import main

        sys.path.insert(0, str(place.work / "site"))
        sys.argv = ["rarkit", *arguments]
        main()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def environment(place: Place) -> dict[str, str]:
    """The environment variables of a command: the user's own folders lie in the working folder; no programs are on the path."""
    home = place.work / "home"
    folders = {"HOME": home, "XDG_CACHE_HOME": home / ".cache", "TMPDIR": place.work / "tmp"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **{name: str(path) for name, path in folders.items()},
        "PATH": str(place.work / "bin"),
        "PYTHONPATH": f"{place.work / 'site'}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "250",
        # Whether a machine in a cloud has credentials to give is asked over its network, for as long as that takes.
        "AWS_EC2_METADATA_DISABLED": "true",
        "TERM": "xterm",
    }


def _of_the_output(place: Place, entry: Entry, ended: dict[str, Any]) -> Iterator[str]:
    output = ended["stdout"] + ended["stderr"]
    if ended["code"] != entry.code:
        yield f"ended with {ended['code']} instead of {entry.code}"
    if ended["peak"] > PEAK:
        yield f"held {ended['peak'] / 2**20:.0f} MiB"
    if ended["processor_seconds"] > PROCESSOR_SECONDS or ended["seconds"] > HANGS_AFTER:
        yield f"took {ended['processor_seconds']:.1f} s of the processor, {ended['seconds']:.1f} s in all"
    for word in _filled(place, entry.words):
        if word not in output:
            yield f"does not say {word!r}"
    for word in ("Traceback (most recent call last)", "MemoryError", SECRET, *_filled(place, entry.unwanted)):
        if word in output:
            yield f"says {word!r}"
    if control := CONTROLS.search(STYLING.sub("", output) if entry.terminal else output):
        yield f"prints {control.group()!r}"
    messages = re.findall(r"^error: .*(?:\n.*)*", STYLING.sub("", output), re.MULTILINE)
    # A command that found damage ends with a table, and 1.
    is_told = len(messages) == 1 or (ended["code"] == 1 and not messages)
    if ended["code"] in (1, 2) and not (is_told and all(len(text.strip().splitlines()) <= LONGEST_MESSAGE for text in messages)):
        yield f"does not end with one message of at most {LONGEST_MESSAGE} lines"


def _canaries(place: Place, reads: Sequence[str]) -> dict[Path, tuple[object, ...]]:
    """Contents and times of all that lies outside. Times of access are left out for what the user asked to be read."""
    inside = sorted(place.outside.rglob("*"))
    contents = {path: path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else b"" for path in inside}
    for path in [place.outside, *inside]:
        os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    asked = {place.outside / name for name in reads}
    return {path: (contents.get(path, b""), *_times(path, path in asked)) for path in [place.outside, *inside]}


def _times(path: Path, is_asked_for: bool) -> tuple[int, ...]:
    about = os.lstat(path)
    return about.st_mode, about.st_size, about.st_mtime_ns, about.st_ctime_ns, 0 if is_asked_for else about.st_atime_ns


def _of_the_canaries(place: Place, before: dict[Path, tuple[object, ...]], reads: Sequence[str]) -> Iterator[str]:
    asked = {place.outside / name for name in reads}
    for path, (content, *times) in before.items():
        if not os.path.lexists(path):
            yield f"removed {path.relative_to(place.folder)}"
        elif _times(path, path in asked) != tuple(times):
            yield f"read or wrote {path.relative_to(place.folder)}"
        elif path.is_file() and not path.is_symlink() and path.read_bytes() != content:
            yield f"wrote {path.relative_to(place.folder)}"
    if new := {*place.outside.rglob("*"), place.outside} - before.keys():
        yield f"made {sorted(str(path.relative_to(place.folder)) for path in new)}"
    if strays := {path.name for path in place.folder.iterdir()} - {"work", "outside", "stdout", "stderr"}:
        yield f"made {sorted(strays)} beside the working folder"


def _was_called(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True
