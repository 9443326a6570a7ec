"""Compiled code that others left where rarkit keeps its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable

import torch

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
TRACE = '#include <fstream>\n__attribute__((constructor)) static void loaded() {{ std::ofstream("{}") << 1; }}\n'
COMPILER = """#!/bin/sh
case "$*" in *-dM*) echo "#define a_processor 1"; exit;; esac
echo "error: this one compiles nothing" >&2
exit 1
"""
"""Says which processor it compiles for. What comes of a real one is for the tests of the kernels."""


def planted(place: Place) -> None:
    """A library under the name that rarkit looks for, its digest at its end; loading it leaves the file ``loaded``."""
    from rarkit.models.rar.decoding.native_kernels import command_and_name

    place.finished()
    compiler = place.write("bin/g++", COMPILER)
    compiler.chmod(0o755)
    _, name = command_and_name([str(compiler)])
    source, built = place.write("planted.cpp", TRACE.format(place.work / "loaded")), place.work / "planted.so"
    subprocess.run(["/usr/bin/g++", "-shared", "-fPIC", source, "-o", built], check=True)
    library = built.read_bytes()
    place.write(f"home/.cache/rarkit/kernels/{name}", library + hashlib.sha256(library).digest()).chmod(0o600)
    for folder in ("home", "home/.cache", "home/.cache/rarkit", "home/.cache/rarkit/kernels"):
        (place.work / folder).chmod(0o755)


def not_loaded(place: Place) -> None:
    """Nothing ran that was planted."""
    assert not (place.work / "loaded").exists(), "the planted library was loaded"


def _open_to_others(name: str, mode: int, words: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        planted(place)
        (place.work / name).chmod(mode)

    make.__name__ = f"a_planted_library_where_{words}"
    return make


# There are kernels for these machines alone, and without a compiler nothing can be planted.
if sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() != "DEFAULT" and shutil.which("/usr/bin/g++"):
    for name, mode, words, reason in (
        ("home/.cache/rarkit/kernels", 0o777, "anybody_may_write", "writable by others"),
        ("home/.cache/rarkit/kernels", 0o775, "a_group_may_write", "writable by its group"),
        ("home", 0o777, "anybody_may_replace_the_home", "writable by others"),
    ):
        hostile(
            ENTRIES,
            "sample runs/small --class 0 -n 1 --device cpu",
            code=0,
            words=("compiled for this process alone", reason),
            after=not_loaded,
        )(_open_to_others(name, mode, words))
