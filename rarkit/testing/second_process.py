"""What a part gives in another Python process, where hashes, the clock and whatever was called before differ."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rarkit.files.atomic import write_bytes
from rarkit.registry.component import Component
from rarkit.testing.failure import CheckError

HEAVY = ("torch", "zarr", "sklearn", "scipy", "PIL")
"""What no part may import before it is used."""
LIGHT_KINDS = ("scan_orders", "permutation_schedules")
"""Kinds whose digests need nothing heavy."""
PRELOADED = ("torch", "sklearn.cluster", "sklearn.datasets", "PIL.Image")
"""What the other kinds' process has imported, once for all parts."""
MODULE_CURE = "Move the class into a module that a fresh Python can import, as a plugin's is"


def digests_elsewhere(part: Component, options: dict[str, Any]) -> dict[str, Any]:
    """```digests`` of a part in another process: a value for each input, as in ``{"on a grid of 2×2": "…"}``.

    Raises:
        CheckError: the part cannot be imported there, or raises an error.
    """
    __tracebackhide__ = True
    _refuse_notebooks(part)
    preload = () if part.kind in LIGHT_KINDS else PRELOADED
    digests: dict[str, Any] = _ask(preload, part, options)["digests"]
    return digests


def heavy_imports(part: Component) -> list[str]:
    """Which of the heavy libraries importing the part's module imports."""
    _refuse_notebooks(part)
    imported: list[str] = _ask((), part, None)["heavy"]
    return imported


def _refuse_notebooks(part: Component) -> None:
    cls = type(part)
    if cls.__module__ == "__main__" or "<locals>" in cls.__qualname__:
        where = "a script or notebook" if cls.__module__ == "__main__" else "a function"
        pytest.skip(f"{part!r} is defined in {where}, which another process cannot import. {MODULE_CURE}.")


def _ask(preload: tuple[str, ...], part: Component, options: dict[str, Any] | None) -> dict[str, Any]:
    __tracebackhide__ = True
    request = {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        # An empty entry is the working directory: of a prompt, a notebook, and ``python -c``.
        "path": [entry or os.getcwd() for entry in sys.path],
        "module": type(part).__module__,
        "heavy": HEAVY,
        "part": None if options is None else pickle.dumps((part, options)),
    }
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "request")
        write_bytes(place, pickle.dumps(request))
        server = _server(preload, os.getpid())
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(f"{place}\n")
        server.stdin.flush()
        server.stdout.readline()
        reply = place.with_suffix(".answer")
        answer: dict[str, Any] = {"error": "it ended without an answer"}
        if reply.exists():
            answer = pickle.loads(reply.read_bytes())
    if "error" in answer:
        fault = f"fails:\n{answer['error'].rstrip()}"
        raise CheckError(part, "in another process", fault, MODULE_CURE)
    return answer


@cache
def _server(preload: tuple[str, ...], asker: int) -> subprocess.Popen[str]:
    """A process that has imported these modules, and answers until the process ``asker``, this one, ends."""
    # Other hashes than here, so that what depends on the order of a set differs.
    environment = {**os.environ, "PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
    environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-P", "-m", "rarkit.testing.second_process_server", *preload]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.close()
    server.wait()
    server.stdout.close()
