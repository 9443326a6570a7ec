"""The commands: fast help, clear messages, JSON for scripts."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from PIL import Image

from tests.processes import call, rarkit_with

RARKIT = Path(sys.executable).with_name("rarkit")


@pytest.fixture
def sets(short_overrides):
    return [word for override in short_overrides for word in ("--set", override)]


@pytest.fixture
def store(finished, tmp_path):
    shutil.copytree(finished.plan.store.root, tmp_path / "store")
    return tmp_path / "store"


# Help


def test_help_is_light():
    """Of rarkit's requirements, help imports only those that print it. ``benchmarks/startup.py`` measures the time."""
    required = {re.match(r"[\w-]+", requirement)[0] for requirement in requires("rarkit") if "extra ==" not in requirement}
    renamed = {"pillow": "PIL", "scikit-learn": "sklearn", "tomli-w": "tomli_w"}
    needed = {renamed.get(name, name) for name in required}
    assert all(importlib.util.find_spec(name) for name in needed)
    code = f"import sys, atexit; atexit.register(lambda: print(*sorted({needed} & sys.modules.keys())))"
    code += "; from rarkit.cli import main; main()"
    help_ = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True).stdout
    assert "plugins" in help_
    assert help_.splitlines()[-1] == "rich typer"
    assert subprocess.run([RARKIT, "--help"], capture_output=True, text=True, check=True).stdout.startswith(help_[:200])


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
@pytest.mark.parametrize("module", ["rarkit.cli.app", "typer", "rarkit.cli.options"])
def test_signals_while_the_command_is_imported_are_one_line(name, code, module):
    script = f"""
import os, signal, sys
# A shell that runs the tests in the background ignores SIGINT, and so does what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Interrupts())
from rarkit.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"stopped by {name}. Nothing was begun.\n")


def test_planning_what_is_finished_needs_no_torch(finished, digits_recipe, sets):
    code = "import sys; from rarkit.cli.app import app; app(sys.argv[1:], standalone_mode=False); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "plan", digits_recipe, "--store", finished.plan.store.root, *sets]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "False"


def test_a_warning_is_shown_without_the_code_that_issued_it():
    code = """
import warnings
from rarkit.cli import main
from rarkit.cli.app import app
from rarkit.errors import RarkitWarning

@app.command()
def warn():
    warnings.warn("look at this", RarkitWarning)
    warnings.warn("a library's own")

main()
"""
    lines = subprocess.run([sys.executable, "-c", code, "warn"], capture_output=True, text=True, check=True).stderr.splitlines()
    assert lines[0] == "warning: look at this"
    assert lines[1].endswith("UserWarning: a library's own")


def test_version(rarkit):
    assert rarkit("--version")[:2] == (0, "rarkit 0.1.0\n")


# Running and planning


def test_run_says_when_there_is_nothing_to_do(rarkit, finished, digits_recipe, sets):
    runs = ("--store", finished.plan.store.root, "--runs", finished.folder.parent)
    code, out, _ = rarkit("run", digits_recipe, *runs, *sets)
    assert code == 0
    assert "Nothing to do: everything is in the store already." in out
    assert "class_agreement" in out
    assert "report.html" in out
    code, out, err = rarkit("run", digits_recipe, *runs, *sets, "--json")
    assert code == 0
    assert {stage["action"] for stage in json.loads(out)["stages"]} == {"cached"}
    assert err == ""


def test_dry_run_and_plan_say_the_same_and_write_nothing(rarkit, digits_recipe, sets, tmp_path):
    dry = rarkit("run", digits_recipe, "--dry-run", *sets)
    assert dry == rarkit("plan", digits_recipe, *sets)
    assert dry[0] == 0
    assert dry[1].count("not in the store yet") == 6
    planned = json.loads(rarkit("plan", digits_recipe, "--json", *sets)[1])
    assert [stage["action"] for stage in planned["stages"]] == ["run"] * 6
    assert list(tmp_path.iterdir()) == []


# Mistakes: one clear message, exit code 2, nothing written


def recipe_with(tmp_path, digits_recipe, old, new):
    path = tmp_path / "mine.toml"
    text = Path(digits_recipe).read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "digits"', 'name = "digitz"', "no dataset is called 'digitz'; did you mean 'digits'?"),
        ("[train]", "[train]\nstep = 3", "train.step: no such key; did you mean 'steps'?"),
        ("seed = ", "seed = = ", "is not valid TOML"),
        ("hidden_size = ", 'hidden_size = "big" #', "model.hidden_size: found 'big'; input should be a valid integer"),
        ("[train]", "[nonsense]\n[train]", "nonsense: no such key"),
        ("patch = 2", "patch = 3", "cannot cut images of 8×8 into patches of 3×3"),
        (
            'name = "patch_kmeans"\npatch = 2',
            'name = "patch_kmeans"\npatch = 8',
            "'subsample' does not support a grid of 1×1: it needs",
        ),
    ],
)
def test_mistakes_in_a_recipe(rarkit, tmp_path, digits_recipe, old, new, message):
    path = recipe_with(tmp_path, digits_recipe, old, new)
    extra = ["--set", "scan_order.name=subsample"] if "subsample" in message else []
    for command in ("run", "plan", "validate"):
        code, out, err = rarkit(command, path, *extra)
        assert code == 2
        assert out == ""
        assert err.startswith("error: ")
        assert message in err
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_recipe(rarkit, tmp_path):
    code, _, err = rarkit("run", "nowhere.toml")
    assert (code, "there is no recipe nowhere.toml" in err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store(rarkit, digits_recipe, sets, store):
    chunk = next(store.glob("tokenize/*/train_tokens/c/0/0"))
    chunk.unlink()
    code, _, err = rarkit("run", digits_recipe, "--store", store, *sets)
    assert code == 2
    assert "chunk 0 of array 'train_tokens' is missing" in err
    assert "--force tokenize" in err
    assert "damaged" in rarkit("plan", digits_recipe, "--store", store, *sets)[1]


def test_a_damaged_record(rarkit, digits_recipe, sets, store):
    record = next(store.glob("train/*/zarr.json"))
    record.write_text(record.read_text()[:50])
    code, _, err = rarkit("run", digits_recipe, "--store", store, *sets)
    assert code == 2
    assert "--force train" in err


def test_damage_of_any_file_is_seen(rarkit, digits_recipe, sets, store, finished, tmp_path):
    """Damage to the model, an array's metadata or a record is reported by verify and by a run that reads it."""
    model = next(store.glob("train/*/files/model.safetensors"))
    data = bytearray(model.read_bytes())
    data[-3] ^= 1
    model.write_bytes(data)
    code, out, _ = rarkit("cache", "verify", "--store", store)
    assert code == 1
    assert "file 'model.safetensors' is not what was written" in out
    colder = ("--set", "sample.temperature=0.5")
    code, _, err = rarkit("run", digits_recipe, "--store", store, *sets, *colder)
    assert (code, "--force train" in err, "Traceback" in err) == (2, True, False)
    next(store.glob("train/*/log_step/zarr.json")).unlink()
    code, _, err = rarkit("run", digits_recipe, "--store", store, *sets, *colder)
    assert (code, "array 'log_step' has lost its zarr.json" in err) == (2, True)
    next(store.glob("train/*/zarr.json")).write_text("{")
    code, out, _ = rarkit("cache", "verify", "train", "tokenize", "--store", store)
    assert code == 1
    assert [line.split(": ")[1] for line in out.splitlines()] == ["damaged", "intact"]


def test_no_store_is_not_an_empty_store(rarkit, tmp_path):
    code, out, err = rarkit("cache", "ls", "--store", tmp_path / "nowhere")
    assert (code, out, "there is no store" in err) == (2, "", True)


@pytest.mark.parametrize("device", ["cuda", "tpu"])
def test_a_device_that_is_not_there_costs_nothing(rarkit, digits_recipe, sets, store, device):
    if device == "cuda" and pytest.importorskip("torch").cuda.is_available():
        pytest.skip("it is there")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    code, _, err = rarkit("run", digits_recipe, "--store", store, *sets, "--force", "sample", "--device", device)
    assert code == 2
    assert f"error: device '{device}' cannot be used here" in err
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before


def test_mistakes_in_overrides_name_the_option(rarkit, digits_recipe):
    code, _, err = rarkit("validate", digits_recipe, "--set", "train.steps=abc", "--set", "title=5")
    assert code == 2
    assert "--set train.steps=abc: train.steps: found 'abc'" in err
    assert "--set title=5: title: found 5" in err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_rehearsal_prints_its_numbers(rarkit, small_recipe, form):
    """Its store is gone by then."""
    code, out, err = rarkit("run", small_recipe, "--rehearse", "--quiet", *form)
    assert code == 0, err
    assert "class_agreement" in out


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_store_without_permission(rarkit, digits_recipe, sets, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    if os.getuid() == 0:
        # Root may write to any folder, but not into a file.
        locked.rmdir()
        locked.write_text("")
    else:
        locked.chmod(0o500)
    code, _, err = rarkit("run", digits_recipe, "--store", locked / "store", *sets)
    assert code == 2
    assert ("lies below a file" if os.getuid() == 0 else "cannot be") in err
    assert "store" in err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_protocol(rarkit, digits_recipe):
    code, _, err = rarkit("run", digits_recipe, "--store", "nonsense://x")
    assert code == 2
    assert "nonsense" in err


# Plugins, installed as distributions on the path


def distribution(folder, name, code):
    """An installed plugin: a module and its metadata."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[rarkit]\n{module} = {module}\n")


ORDER = """
from typing import Literal
from rarkit import ScanOrder, hookimpl
class Mine(ScanOrder):
    "Raster, again."
    name: Literal["{name}"] = "{name}"
    def order(self, height, width):
        import numpy as np
        return np.arange(height * width)
@hookimpl
def rarkit_scan_orders():
    return [Mine]
"""


@pytest.fixture
def with_plugins(tmp_path):
    """Runs a command in a process that finds the distributions in ``tmp_path``."""

    def run(*arguments, **variables):
        printed = Path(tempfile.mkdtemp(dir=tmp_path))
        return call(printed, rarkit_with, str(tmp_path), {"COLUMNS": "200", **variables}, *arguments)

    return run


def test_a_broken_plugin_is_shown_and_harms_only_those_who_need_it(with_plugins, tmp_path, digits_recipe):
    distribution(tmp_path, "good-plugin", ORDER.format(name="mine"))
    distribution(tmp_path, "bad-plugin", "import no_such_library")
    listed = with_plugins("plugins", "list", "--json")
    status = {plugin["plugin"]: plugin for plugin in json.loads(listed.stdout)["plugins"]}
    assert status["good_plugin"]["status"] == "loaded"
    assert status["good_plugin"]["parts"] == [{"kind": "scan_orders", "name": "mine", "version": 1}]
    assert status["bad_plugin"]["status"] == "broken"
    assert "no_such_library" in status["bad_plugin"]["cause"]
    assert "no_such_library" in with_plugins("plugins", "list").stdout
    assert with_plugins("validate", digits_recipe, "--set", "scan_order.name=mine").returncode == 0
    missing = with_plugins("validate", digits_recipe, "--set", "scan_order.name=theirs")
    assert missing.returncode == 2
    assert "Plugin 'bad_plugin' of bad-plugin failed to load: ModuleNotFoundError" in missing.stderr
    strict = with_plugins("validate", digits_recipe, "--strict-plugins")
    assert (strict.returncode, "bad-plugin" in strict.stderr) == (2, True)


def test_two_plugins_with_one_part_name(with_plugins, tmp_path, digits_recipe):
    distribution(tmp_path, "one-plugin", ORDER.format(name="mine"))
    distribution(tmp_path, "two-plugin", ORDER.format(name="mine"))
    clash = with_plugins("validate", digits_recipe)
    assert clash.returncode == 2
    assert "one-plugin 1.0" in clash.stderr
    assert "two-plugin 1.0" in clash.stderr
    assert "RARKIT_BLOCK_PLUGINS=two_plugin" in clash.stderr
    assert "conflict" in with_plugins("plugins", "list").stdout
    blocked = with_plugins("validate", digits_recipe, RARKIT_BLOCK_PLUGINS="two_plugin")
    assert blocked.returncode == 0


# Other commands


def test_validate_prints_the_whole_recipe(rarkit, digits_recipe):
    code, out, err = rarkit("validate", digits_recipe, "--set", "train.steps=999")
    assert code == 0
    assert "steps = 999" in out
    assert "is valid" in err
    assert json.loads(rarkit("validate", digits_recipe, "--json")[1])["dataset"]["name"] == "digits"


def test_schema_is_json_and_the_committed_one_is_current(rarkit):
    printed = rarkit("schema")[1]
    assert json.loads(printed)["properties"]["extends"]["type"] == "string"
    committed = Path(__file__).parents[2] / "recipes/schema.json"
    assert json.loads(printed) == json.loads(committed.read_text()), "rarkit schema > recipes/schema.json"


def test_orders_are_drawn(rarkit, tmp_path):
    code, out, _ = rarkit("orders", "show", "spiral", "--grid", "3x4")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["0", "9", "8", "7"],
        ["1", "10", "11", "6"],
        ["2", "3", "4", "5"],
    ]
    assert json.loads(rarkit("orders", "show", "raster", "--grid", "1x3", "--json")[1]) == {"order": [0, 1, 2], "rank": [0, 1, 2]}
    outward = rarkit("orders", "show", "spiral", "--grid", "3x4", "--set", "direction=outward")[1]
    assert outward.split()[0] == "11"
    assert rarkit("orders", "show", "spiral", "--png", tmp_path / "spiral.png")[0] == 0
    assert Image.open(tmp_path / "spiral.png").format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("spirall",), "did you mean 'spiral'?"),
        (("spiral", "--grid", "8"), "expected HEIGHTxWIDTH"),
        (("spiral", "--grid", "0x8"), "at least one row"),
        (("z_curve", "--grid", "3x3"), "power of two"),
        (("spiral", "--set", "direction=up"), "direction: found 'up'; input should be 'inward' or 'outward'"),
        (("spiral", "--set", "way=up"), "way: no such key. Allowed: name, direction."),
        (("spiral", "--png", "spiral.jpg"), "it has to end in .png"),
        (("spiral", "--png", "spiral.png", "--json"), "leave out --json, or --png"),
    ],
)
def test_orders_that_cannot_be_drawn(rarkit, arguments, message):
    code, _, err = rarkit("orders", "show", *arguments)
    assert (code, message in err) == (2, True), err


def test_cache_is_listed_verified_and_removed(rarkit, store):
    rows = json.loads(rarkit("cache", "ls", "--store", store, "--json")[1])
    assert {row["stage"] for row in rows} == {"fit", "tokenize", "train", "sample", "reference", "evaluate"}
    assert all(row["complete"] and row["bytes"] > 0 for row in rows)
    assert "digits" in rarkit("cache", "ls", "--store", store)[1]
    assert rarkit("cache", "verify", "--store", store)[0] == 0
    chunk = next(store.glob("sample/*/images/c/0/0/0/0"))
    data = bytearray(chunk.read_bytes())
    data[100] ^= 1
    chunk.write_bytes(data)
    code, out, _ = rarkit("cache", "verify", "--store", store, "sample")
    assert code == 1
    assert "chunk 0 of array 'images'" in out
    assert "--force sample" in out
    assert rarkit("cache", "rm", "sample", "--store", store, "--yes")[0] == 0
    assert rarkit("cache", "rm", "sample", "--store", store, "--yes")[0] == 2
    (store / "empty").mkdir()
    assert rarkit("cache", "ls", "--store", store / "empty")[1].strip() == "The store is empty."


# Export


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_an_exported_model_is_the_trained_one(rarkit, finished, tmp_path, merged, suffix):
    import torch

    from rarkit.models import load_rar
    from rarkit.stages.train import trained_model

    path = tmp_path / f"exported.{suffix}"
    code, out, _ = rarkit("export", finished.folder, "-o", path, *(["--merged"] if merged else []))
    assert (code, out.strip()) == (0, str(path))
    recipe, config = finished.plan.recipe, finished.plan.experiment.config
    exported = load_rar(path, config)
    trained = trained_model(finished.plan["train"].output, recipe.model, config, recipe.attention, "cpu")
    assert ("pos_embed" in exported.state_dict()) == (not merged)
    tokens, labels, order = torch.arange(32).reshape(2, 16) % 16, torch.tensor([1, 2]), torch.arange(16)
    assert (exported(tokens, labels, order) - trained(tokens, labels, order)).abs().max() <= 1e-5


def test_what_is_no_run_is_not_exported(rarkit, tmp_path):
    code, _, err = rarkit("export", tmp_path)
    assert (code, "is not a run: it has no receipt.json" in err) == (2, True)
    (tmp_path / "receipt.json").write_text("{}")
    assert "receipt.json is damaged (recipe_name: Field required)" in rarkit("export", tmp_path)[2]
