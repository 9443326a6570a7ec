"""Every command, where all that strangers can name has names that steer terminals: nothing raw is printed, and no traceback.

What cannot lie in one project (locks, shards, plugins, damaged receipts) is in the corpus, tests/hostile/printing.py.
"""

from __future__ import annotations

import io
import json
import sys
import tomllib
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from rarkit.cli import main
from rarkit.datasets import notices
from rarkit.printable import printable
from tests.cli.test_advice import COMMANDS
from tests.hostile.harness import CONTROLS

STEERING = "\x1b]0;x\x07\x1b[2J[/x]\u202e\r\nerror: forged\x9b"
NAME = STEERING.replace("/", "|")
"""The same, as files can be called."""
SHOWN, SHOWN_NAME = printable(STEERING), printable(NAME)
SMALL = Path(__file__).parents[1] / "data/small.toml"
RECIPE, STORE, RUN = f"{NAME}.toml", f"store{NAME}", f"runs/{NAME}"


def called(*arguments: str) -> tuple[int, str, str]:
    """Runs a command in this process; returns its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", ["rarkit", *arguments]), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *what: sys.stderr.write(warnings.formatwarning(*what[:4]))  # pytest's keeps them
        with pytest.raises(SystemExit) as stopped:
            main()
    return stopped.value.code, out.getvalue(), err.getvalue()


def planted(folder: Path) -> None:
    """A recipe and a folder of classes, all of odd names, with an image that cannot be decoded."""
    for number, name in enumerate((f"a{NAME}", f"b{NAME}")):
        for split, count in (("train", 6), ("val", 4)):
            place = folder / "images" / split / name
            place.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((4, 4, 3), 40 * index + number, np.uint8)).save(place / f"{index}{NAME}.png")
        (folder / "images/train" / name / f"bad{NAME}.png").write_bytes(b"no image")
    small = tomllib.loads(SMALL.read_text())
    small["title"] = STEERING
    small["dataset"] = {"name": "image_folder", "path": "images", "size": 4, "on_bad_image": "skip", "workers": 0}
    small["sample"]["per_class"] = 2
    text = json.dumps(small["title"])
    rest = SMALL.read_text().split("[tokenizer]")[1].replace("per_class = 30", "per_class = 4")
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in small["dataset"].items())
    (folder / RECIPE).write_text(f"title = {text}\n[dataset]\n{table}[tokenizer]{rest}")
    (folder / "unknown.toml").write_text(f"extends = {json.dumps(RECIPE)}\n[train]\n{text} = 1\n")
    (folder / "part.toml").write_text(f"extends = {json.dumps(RECIPE)}\n[scan_order]\nname = {text}\n")
    (folder / "value.toml").write_text(f"extends = {json.dumps(RECIPE)}\n[train]\nsteps = {text}\n")
    (folder / "tokens.toml").write_text(f"extends = {json.dumps(RECIPE)}\n[train]\ntokens = {text}\n")
    (folder / "based.toml").write_text(f"extends = {json.dumps('none' + STEERING)}\n")
    (folder / f"lines{NAME}.jsonl").write_text('{"class_id": 0, "tokens": [0, 1, 2, 3]}\n')
    (folder / f"bad{NAME}.jsonl").write_text("{\n")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Where the recipe has been run."""
    folder = tmp_path_factory.mktemp("project")
    planted(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setenv("COLUMNS", "2000")
        patched.setattr(notices, "_GIVEN", set())
        code, out, err = called("run", RECIPE, "--store", STORE, "--device", "cpu")
        # Whoever writes to a store names its folders.
        (folder / STORE / f"fit{NAME}" / f"cafe{NAME}").mkdir(parents=True)
        (folder / STORE / f"fit{NAME}" / f"cafe{NAME}" / "zarr.json").write_text("{}")
        assert code == 0, err
        check(out + err)
        # Results are never under such a name; whoever hands on a run's folder names it.
        (folder / "runs/recipe").rename(folder / RUN)
        assert SHOWN_NAME in out
        assert f"bad{SHOWN_NAME}.png" in err
        yield folder


def check(printed: str) -> None:
    assert "Traceback" not in printed
    assert not CONTROLS.search(printed), ascii(CONTROLS.search(printed))
    assert not any(line.startswith("error: forged") for line in printed.splitlines())


PRINTED = [
    ("run --store {STORE} --device cpu {RECIPE}", 0, [SHOWN, SHOWN_NAME]),
    ("run --store {STORE} --device cpu --dry-run {RECIPE}", 0, [SHOWN]),
    ("run --store {STORE} --device cpu --json {RECIPE}", 0, []),
    ("run --store {STORE} --device cpu --until {TEXT} {RECIPE}", 2, []),
    ("sample {RUN} --class 0 --device {TEXT}", 2, []),
    ("run none{TEXT}.toml", 2, [SHOWN]),
    ("plan --store {STORE} {RECIPE}", 0, [SHOWN]),
    ("plan --store {STORE} {RECIPE} --json", 0, ["\\u001b"]),
    ("plan --gpu {TEXT} {RECIPE}", 2, ["a100"]),
    ("plan --store {STORE} tokens.toml", 0, [f"reads {SHOWN} (train.tokens)", "Missing"]),
    ("validate {RECIPE}", 0, ["\\u001b", SHOWN_NAME]),
    ("validate {RECIPE} --json", 0, ["\\u001b"]),
    ("validate unknown.toml", 2, ["no such key"]),
    ("validate part.toml", 2, ["scan_order.name"]),
    ("validate value.toml", 2, ["train.steps"]),
    ("validate based.toml", 2, [SHOWN]),
    ("validate {RECIPE} --set {TEXT}=1", 2, []),
    ("validate {RECIPE} --unset {TEXT}", 2, []),
    ("validate {RECIPE} -{TEXT}", 2, ["--help"]),
    ("schema", 0, []),
    ("new none{TEXT}", 2, [SHOWN]),
    ("new {RECIPE}", 2, ["is a recipe already"]),
    ("export {RUN}", 0, [SHOWN_NAME]),
    ("export none{TEXT}", 2, [SHOWN]),
    ("sample {RUN} --class 0 -n 1 --device cpu -o {NAME}.png", 0, [SHOWN_NAME]),
    ("sample {RUN} --class 0 -n 1 --device cpu --json -o {NAME}.png", 0, ["\\u001b"]),
    ("sample {RUN} --class {TEXT} --device cpu", 2, [SHOWN_NAME]),
    ("sample {RUN} --set {TEXT}=1", 2, []),
    ("sample none{TEXT}", 2, [SHOWN]),
    ("plugins list", 0, ["builtin"]),
    ("plugins none{TEXT}", 2, ["--help"]),
    ("plugins show builtin", 0, ["rar"]),
    ("plugins show {TEXT}", 2, [SHOWN]),
    ("plugins check {TEXT}", 2, [SHOWN]),
    ("plugins new {TEXT} --kind scan_order", 2, []),
    ("plugins new rarkit-x --kind {TEXT}", 2, []),
    ("plugins new rarkit-x --kind scan_order -o plugin{NAME}", 0, [SHOWN_NAME]),
    ("parts", 0, ["spiral"]),
    ("parts {TEXT}", 2, []),
    ("schedules show {TEXT}", 2, []),
    ("schedules show linear --set {TEXT}=1", 2, []),
    ("orders show {TEXT}", 2, []),
    ("orders show spiral --set {TEXT}=1", 2, []),
    ("orders show spiral --grid {TEXT}", 2, []),
    ("export {RUN} --tokenizer one{NAME}.safetensors", 0, [SHOWN_NAME]),
    ("tokenizer evaluate {RUN} --device cpu -n 2 --show {NAME}.png", 0, [SHOWN_NAME]),
    ("tokenizer evaluate {RUN} --device cpu -n 2 --json", 0, []),
    ("tokenizer evaluate {RUN} --split {TEXT}", 2, []),
    ("tokenizer evaluate {RUN} --data {TEXT}", 2, []),
    ("tokenizer evaluate {RUN} --set {TEXT}=1", 2, [SHOWN]),
    ("tokenizer evaluate none{TEXT}", 2, [SHOWN]),
    ("tokens import lines{NAME}.jsonl tokens{NAME} --grid 2x2 --codebook-size 5", 0, [SHOWN_NAME]),
    ("tokens import bad{NAME}.jsonl none{NAME} --grid 2x2", 2, [SHOWN_NAME]),
    ("tokens export tokens{NAME} out{NAME}.jsonl", 0, [SHOWN_NAME]),
    ("tokens export none{TEXT} -", 2, [SHOWN]),
    ("cache ls --store {STORE}", 0, [SHOWN_NAME]),
    ("cache ls --store {STORE} --json", 0, ["\\u001b"]),
    ("cache ls --store none{TEXT}", 2, []),
    ("cache ls {TEXT} --store {STORE}", 2, []),
    ("cache verify --store {STORE}", 1, ["intact", f"fit{SHOWN_NAME}/cafe{SHOWN_NAME}: damaged"]),
    ("cache verify --store {STORE} --json", 1, ["\\u001b"]),
    ("cache rm fit{NAME} --store {STORE}", 2, [f"Remove fit{SHOWN_NAME}", "--yes"]),
    ("cache rm receipts/{TEXT} --store {STORE}", 2, []),
    ("cache gc --store {STORE}", 0, ["Nothing to remove"]),
]
"""Commands in the project, their exit codes, and what they print of what is foreign."""


@pytest.mark.parametrize(("command", "code", "words"), PRINTED, ids=[command for command, _, _ in PRINTED])
def test_nothing_raw_is_printed(project, command, code, words):
    values = {"RECIPE": RECIPE, "STORE": STORE, "RUN": RUN, "NAME": NAME, "TEXT": STEERING}
    ended, out, err = called(*(word.format(**values) for word in command.split()))
    assert ended == code, out + err
    check(out + err)
    for word in words:
        assert word in out + err
    if "--json" in command:
        assert json.loads(out)


def test_every_command_is_tried():
    leaves = {name for name in COMMANDS if name and not any(other.startswith(f"{name} ") for other in COMMANDS)}
    assert {name for name in leaves if any(f"{command} ".startswith(f"{name} ") for command, _, _ in PRINTED)} == leaves


def test_printed_data_is_what_it_was(project):
    assert tomllib.loads(called("validate", RECIPE)[1])["title"] == STEERING
    assert json.loads(called("validate", RECIPE, "--json")[1])["title"] == STEERING
    assert json.loads(called("plan", RECIPE, "--store", STORE, "--json")[1])["store"] == STORE


def test_the_page_and_the_files_of_a_run(project):
    for path in (project / RUN).iterdir():
        if path.suffix in (".html", ".json", ".jsonl"):
            assert not CONTROLS.search(path.read_text()), path.name
    assert "[2J[/x]\\u202e" in (project / RUN / "report.html").read_text()
