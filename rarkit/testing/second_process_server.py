"""The program of a second process: ``python -m rarkit.testing.second_process_server``, which ``second_process`` starts.

Each line of its input is the path of a request; the answer is beside it. Each request has a process of its own, forked where that
is possible, so that none sees what another imported.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

from rarkit.files.atomic import write_bytes
from rarkit.testing.digests import digests


def main() -> None:
    lines = os.dup(1)
    # What a part prints must not be taken for an answer.
    os.dup2(2, 1)
    for name in ("rarkit.builtin", *sys.argv[1:]):
        importlib.import_module(name)
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        if not hasattr(os, "fork"):
            answer(path)
        elif child := os.fork():
            os.waitpid(child, 0)
        else:
            answer(path)
            os._exit(0)
        os.write(lines, b"done\n")


def answer(path: Path) -> None:
    """Reads a request, and writes the answer."""
    try:
        result = _answer(pickle.loads(path.read_bytes()))
    except BaseException:
        result = {"error": traceback.format_exc(limit=-3)}
    write_bytes(path.with_suffix(".answer"), pickle.dumps(result))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[:] = request["path"]
    before = set(sys.modules)
    importlib.import_module(request["module"])
    answer: dict[str, Any] = {"heavy": sorted(set(request["heavy"]) & (set(sys.modules) - before))}
    if request["part"] is not None:
        part, options = pickle.loads(request["part"])
        answer["digests"] = digests(part, **options)
    return answer


if __name__ == "__main__":
    main()
