"""Runs whose file operations fail: a compiled layer between the process and the C library says no at the n-th call of a kind.

The process must have started with the layer preloaded (``preloaded``); children are forked from it, so that each case costs as
little as a run does.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

SOURCE = Path(__file__).with_name("failing_calls.c")
LAYER = "RARKIT_FAILING_CALLS"
KINDS = ("open to read", "open to write", "read", "write", "rename", "mkdir", "unlink", "list", "stat", "chmod", "map", "sync")
"""The kinds of calls, in the order of the enumeration in failing_calls.c."""
ERRORS = {
    "open to read": (errno.EIO, errno.EACCES),
    "open to write": (errno.ENOSPC, errno.EACCES),
    "read": (errno.EIO,),
    "write": (errno.ENOSPC, errno.EIO),
    "rename": (errno.EIO, errno.EACCES),
    "mkdir": (errno.ENOSPC, errno.EACCES),
    "unlink": (errno.EIO, errno.EACCES),
    "list": (errno.EIO, errno.EACCES),
    "stat": (errno.EIO, errno.EACCES),
    "chmod": (errno.EPERM, errno.EIO),
    "map": (errno.ENOMEM, errno.EIO),
    "sync": (errno.EIO,),
}
"""How calls of each kind fail on real disks and file servers."""


@dataclass(frozen=True)
class Fault:
    """The n-th call of a kind fails; all later ones too if it lasts."""

    kind: str
    number: int
    error: int
    lasts: bool

    def __str__(self) -> str:
        return f"{self.kind} no. {self.number}{' and all after it' if self.lasts else ''}: {errno.errorcode[self.error]}"


@dataclass(frozen=True)
class Outcome:
    """How a forked process ended: its exit code (-N for signal N), all that it printed, and its calls by kind."""

    code: int
    output: str
    calls: dict[str, int]


def preloaded() -> None:
    """Runs this program anew with the layer in place, unless it is, and exits as that did. Needs a C compiler (``cc``)."""
    if LAYER in os.environ:
        return
    with tempfile.TemporaryDirectory(prefix="rarkit-faults-") as folder:
        library = f"{folder}/failing_calls.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
        environment = os.environ | {"LD_PRELOAD": library, LAYER: library, "OMP_NUM_THREADS": "1"}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)


def forked(folder: Path, work: Callable[[], None], fault: Fault | None = None, timeout: float = 300.0) -> Outcome:
    """Calls ``work`` in a forked process in ``folder``, whose file operations on it fail as ``fault`` says."""
    printed, counted = folder.with_name(f"{folder.name}.out"), folder.with_name(f"{folder.name}.calls")
    child = os.fork()
    if child == 0:
        _child(folder, printed, counted, work, fault)
    until = time.monotonic() + timeout
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > until:
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    calls = [int(number) for number in counted.read_text().split()] if counted.exists() else [0] * len(KINDS)
    return Outcome(os.waitstatus_to_exitcode(ended[1]), printed.read_text(), dict(zip(KINDS, calls, strict=True)))


def _child(folder: Path, printed: Path, counted: Path, work: Callable[[], None], fault: Fault | None) -> NoReturn:
    os.setsid()
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    layer = ctypes.CDLL(os.environ[LAYER])
    layer.fault_count.restype = ctypes.c_long
    kind, number, error, lasts = (-1, 0, 0, False) if fault is None else _numbers(fault)
    layer.fault_arm(str(folder).encode(), kind, ctypes.c_long(number), error, int(lasts))
    code = 99
    # What was imported before stays: the first full garbage collection would look through it.
    gc.freeze()
    try:
        work()
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        counted.write_text(" ".join(str(layer.fault_count(index)) for index in range(len(KINDS))))
        os._exit(code)


def _numbers(fault: Fault) -> tuple[int, int, int, bool]:
    return KINDS.index(fault.kind), fault.number, fault.error, fault.lasts
