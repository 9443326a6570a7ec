"""Plugins and parts that end the process, or print."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
ORDER = """
from typing import Literal
from rarkit import ScanOrder, hookimpl
class Good(ScanOrder):
    "Raster, again."
    name: Literal["good"] = "good"
    def order(self, height, width):
        import numpy as np
        {line}
        return np.arange(height * width)
@hookimpl
def rarkit_scan_orders():
    return [Good]
"""


def _beside_a_good_one(place: Place, code: str) -> None:
    place.plugin("bad_plugin", code)
    place.plugin("good_plugin", ORDER.format(line=""))
    place.recipe('[scan_order]\nname = "good"\n')


@hostile(ENTRIES, "plugins list", code=0, words=("bad_plugin", "RecursionError", "good_plugin"))
def a_module_that_calls_itself_without_an_end(place: Place) -> None:
    _beside_a_good_one(place, "def again():\n    return again()\nagain()")


@hostile(ENTRIES, "validate recipe.toml", code=0, words=("recipe.toml is valid",))
def a_module_that_ends_the_process(place: Place) -> None:
    _beside_a_good_one(place, "import sys\nsys.exit(0)")


@hostile(
    ENTRIES,
    "validate recipe.toml --strict-plugins",
    code=2,
    words=("Plugin 'bad_plugin' of bad_plugin failed to load: SystemExit: bye.",),
)
def a_module_that_ends_the_process_where_all_plugins_must_load(place: Place) -> None:
    _beside_a_good_one(place, "import sys\nsys.exit('bye')")


@hostile(ENTRIES, "plugins list", code=0, words=("KeyboardInterrupt: pressed by nobody", "good_plugin"))
def a_module_that_interrupts(place: Place) -> None:
    _beside_a_good_one(place, "raise KeyboardInterrupt('pressed by nobody')")


@hostile(ENTRIES, "plugins list", code=130, words=("stopped by SIGINT.",))
def a_users_interrupt_that_a_module_swallows(place: Place) -> None:
    _beside_a_good_one(place, "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass")


@hostile(ENTRIES, "plugins list", code=0, words=("Unspeakable: its message raises SystemExit", "good_plugin"))
def an_error_that_cannot_be_told(place: Place) -> None:
    code = "class Unspeakable(BaseException):\n    def __str__(self):\n        raise SystemExit(0)\nraise Unspeakable"
    _beside_a_good_one(place, code)


def _is_json(place: Place) -> None:
    json.loads((place.folder / "stdout").read_text())
    assert {"printed", "written", "by another process"} <= {*(place.folder / "stderr").read_text().splitlines()}


PRINTING = "import os; print('printed'); os.write(1, b'written\\n'); os.system('echo by another process')"


@hostile(ENTRIES, "plugins list --json", code=0, words=('"loaded"',), after=_is_json)
def a_module_that_prints(place: Place) -> None:
    _beside_a_good_one(place, PRINTING)


@hostile(ENTRIES, "orders show good --grid 2x2 --json", code=0, words=('"order"',), after=_is_json)
def a_part_that_prints(place: Place) -> None:
    place.plugin("good_plugin", ORDER.format(line=PRINTING))


PART = "scan order 'good' of good_plugin 1.0 (plugin 'good_plugin')"


def _ending(command: str, line: str, words: str) -> Callable[[Place], None]:
    def make(place: Place) -> None:
        place.plugin("good_plugin", ORDER.format(line=line))
        place.recipe('[scan_order]\nname = "good"\n')

    make.__name__ = f"a_part_that_{words}_in_{command}"
    return make


for command in ("validate", "plan", "run"):
    promise = hostile(ENTRIES, f"{command} recipe.toml", code=2, words=(PART, "SystemExit: 0 in order, line 9 of good_plugin.py"))
    promise(_ending(command, "raise SystemExit(0)", "ends_the_process"))
for line, words, told in (
    ("raise KeyboardInterrupt", "interrupts", "would have ended the process: KeyboardInterrupt"),
    ("self.order(height, width)", "calls_itself", "RecursionError"),
    ("raise EOFError('no more')", "meets_the_end_of_a_file", "EOFError: no more"),
    ("import typer; raise typer.Exit(0)", "exits_as_commands_do", "Exit"),
):
    hostile(ENTRIES, "plan recipe.toml", code=2, words=(PART, told))(_ending("plan", line, words))


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("scan order 'good'", "SystemExit: 0 in check, line 9 of good_plugin.py"))
def a_validator_that_ends_the_process(place: Place) -> None:
    check = "    @pydantic.model_validator(mode='after')\n    def check(self):\n        raise SystemExit(0)\n    def order"
    place.plugin("good_plugin", "import pydantic" + ORDER.replace("    def order", check).format(line=""))
    place.recipe('[scan_order]\nname = "good"\n')


ATTENTION = """
from typing import Literal
from rarkit import AttentionBackend, hookimpl
class Gone(AttentionBackend):
    "Ends the process."
    name: Literal["gone"] = "gone"
    def build(self):
        return attend
def attend(q, k, v, *, causal, dropout=None):
    raise SystemExit(0)
@hookimpl
def rarkit_attention_backends():
    return [Gone]
"""


@hostile(
    ENTRIES,
    "run recipe.toml --store store --device cpu",
    code=2,
    words=("attention_plugin 1.0", "SystemExit: 0 in attend, line 10"),
)
def a_function_of_a_part_that_ends_the_process(place: Place) -> None:
    place.plugin("attention_plugin", ATTENTION)
    place.finished()
    place.recipe('[attention]\nname = "gone"\n')
