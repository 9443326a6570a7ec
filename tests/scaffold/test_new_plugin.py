"""New plugins work as they are written: each kind, in one recipe; ``nox -s new_plugins`` does it with wheels."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import RarkitError, UserError
from rarkit.registry.kinds import KINDS
from rarkit.scaffold.new_plugin import compatible_versions, kind_named, named, write
from rarkit.testing.check import SUITES as CHECKS
from tests import new_plugins
from tests.processes import call, rarkit, rarkit_with


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder of distributions as pip would lay them out, with a new plugin of each kind."""
    folder, site = tmp_path_factory.mktemp("new"), tmp_path_factory.mktemp("site")
    new_plugins.main(folder)
    for plugin in new_plugins.plugins():
        new_plugins.lay_out(folder / plugin.distribution, site)
    return folder, site


@pytest.fixture
def command(installed, tmp_path):
    _, site = installed

    def command(*arguments):
        for name in ("stdout", "stderr"):
            (tmp_path / name).unlink(missing_ok=True)
        return call(tmp_path, rarkit_with, str(site), {"COLUMNS": "200"}, *arguments)

    return command


def test_there_is_a_template_for_every_kind():
    assert {plugin.kind.name for plugin in new_plugins.plugins()} == set(KINDS) == set(CHECKS)
    for plugin in new_plugins.plugins():
        test = plugin.texts()[f"tests/test_{plugin.part}.py"]
        assert f"from rarkit.testing import {CHECKS[plugin.kind.name].__name__}\n" in test


def test_a_recipe_of_new_plugins_runs(installed, command, tmp_path):
    folder, _ = installed
    places = ("--store", tmp_path / "store", "--runs", tmp_path / "runs")
    ended = command("run", folder / "recipe.toml", *places, "--device", "cpu", "--quiet", "--json", "--strict-plugins")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["metrics"]


def test_a_new_plugin_passes_its_check(command):
    """One kind; ``nox -s new_plugins`` checks all of them, which takes a minute."""
    ended = command("plugins", "check", "new_scan_order", "--json", "--quiet")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    [plugin] = json.loads(ended.stdout)
    [part] = plugin["parts"]
    assert (part["kind"], part["name"], part["failures"]) == ("scan_orders", "new_scan_order", [])
    assert len(part["passed"]) >= 10


def test_an_order_for_some_grids_passes(command, installed):
    """Which grids it must support is for its own tests to say."""
    module = installed[1] / "rarkit_new_scan_order" / "__init__.py"
    text = module.read_text()
    only_even = "    def requirement(self, height, width):\n        return None if width % 2 == 0 else 'it needs an even width'\n\n"
    module.write_text(text.replace("    def order(", f"{only_even}    def order("))
    try:
        ended = command("plugins", "check", "new_scan_order", "--quiet")
    finally:
        module.write_text(text)
    assert (ended.returncode, ended.stdout.startswith("✓ scan_orders new_scan_order: 12 checks")) == (0, True), ended.stdout


def test_a_new_plugin_is_shown(command):
    shown = json.loads(command("plugins", "show", "new_tokenizer", "--json").stdout)
    assert shown["requires_rarkit"] == compatible_versions()
    assert shown["file"].endswith("rarkit_new_tokenizer/__init__.py")
    [part] = shown["parts"]
    assert part["settings"] == {"block": "2", "levels": "16"}

    text = command("plugins", "show", "rarkit-new-tokenizer").stdout
    assert "loaded in" in text
    assert "block = 2, levels = 16" in text


def test_its_files_name_what_they_should():
    for plugin in new_plugins.plugins():
        texts = plugin.texts()
        assert f"tests/test_{plugin.part}.py" in texts
        assert re.search(rf"^{re.escape(plugin.kind.header)}\nname = \"{plugin.part}\"$", texts["README.md"], re.MULTILINE)
        assert not [path for path, text in texts.items() if "$" in text]


@pytest.mark.parametrize(
    ("distribution", "kind", "part", "message"),
    [
        ("a b", "scan_order", None, "cannot be the name of a distribution"),
        ("rarkit-\n", "scan_order", None, "cannot be the name of a distribution"),
        ("../up", "scan_order", None, "cannot be the name of a distribution"),
        ("numpy", "scan_order", None, "is installed already"),
        ("rarkit", "scan_order", "columns", "is installed already"),
        ("json", "scan_order", "columns", "its module 'json' is"),
        ("rarkit-raster", "scan_order", None, "there is a scan order 'raster' already, of rarkit"),
        ("rarkit-3d", "scan_order", None, "'3d' cannot be the name of a part. Give the part another one with --name"),
        ("rarkit-x", "scan_order", "X-y", "'X-y' cannot be the name of a part. Use lower-case letters"),
        ("3d", "scan_order", "columns", "'3d' cannot be the module of '3d'. Use a name such as rarkit-columns"),
        ("dist", "scan_order", "columns", "'dist' cannot be the module of 'dist'. Use a name such as rarkit-columns"),
        ("rarkit-x", "scan_order", "x" * 101, "cannot be the name of a part"),
        ("rarkit-builtin", "scan_order", None, "there is a plugin 'builtin' already, of rarkit. Give the new one another name"),
        ("rarkit-x", "scan_ordr", None, "there is no kind of part 'scan_ordr'; did you mean 'scan_order'?"),
    ],
)
def test_names_that_will_not_do_are_refused(distribution, kind, part, message):
    with pytest.raises(UserError, match=re.escape(message)):
        named(distribution, kind, part)


def test_the_prefix_is_left_out_however_it_is_written():
    assert {named(name, "scan_order").part for name in ("rarkit-columns", "rarkit_columns", "Rarkit.Columns")} == {"columns"}


def test_the_commands_it_names_can_be_pasted(tmp_path):
    place = tmp_path / "it's mine"
    ended = call(tmp_path, rarkit, "plugins", "new", "rarkit-columns", "--kind", "scan_order", "-o", place)
    assert ended.returncode == 0, ended.stderr
    commands = [shlex.split(line) for line in ended.stdout.splitlines() if line.startswith("  ")]
    check = ["rarkit", "plugins", "check", "columns"]
    assert commands == [["pip", "install", "-e", f"{place}[dev]"], check, ["python", "-m", "pytest", str(place)]]


@given(st.text(max_size=30))
def test_any_name_is_taken_or_refused(name):
    try:
        plugin = named(name, "scan_order", "columns_of_mine")
    except RarkitError:
        return
    assert plugin.module.isidentifier()
    assert tomllib.loads(plugin.texts()["pyproject.toml"])["project"]["name"] == name


@pytest.mark.parametrize("name", ["scan_order", "scan_orders", "Scan-Order", "scan order"])
def test_kinds_are_singular_or_plural(name):
    assert kind_named(name) is KINDS["scan_orders"]


def test_nothing_that_is_there_is_overwritten(tmp_path):
    plugin = named("rarkit-columns", "scan_order")
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="is there already, and is left as it is"):
        write(plugin, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be made \(Not a directory\)"):
        write(plugin, tmp_path / "file" / "below")


def test_checks_tell_what_fails(installed, command):
    _, site = installed
    wrong = site / "rarkit_new_permutation_schedule" / "__init__.py"
    text = wrong.read_text()
    wrong.write_text(text.replace("(1 - step / total) ** self.power", "2.0"))
    try:
        ended = command("plugins", "check", "new_permutation_schedule", "--quiet")
        assert ended.returncode == 1
        assert "✗ permutation_schedules new_permutation_schedule: " in ended.stdout
        assert "a random ratio is a number from 0 to 1" in ended.stdout
        wrong.write_text("raise RuntimeError('boom')")
        ended = command("plugins", "check", "new_permutation_schedule")
        assert ended.returncode == 1
        assert "broken: RuntimeError: boom" in ended.stdout
    finally:
        wrong.write_text(text)


def test_a_plugin_that_is_not_there(command):
    ended = command("plugins", "show", "new_scan_ordr")
    assert ended.returncode == 2
    assert "did you mean 'new_scan_order'?" in ended.stderr


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["none", "class", "tokenizer", "scan_order", "image", "model", "field", "features", "tensor"])
def test_any_part_has_a_class_of_its_own(kind, part):
    """The module defines its class under a name that it does not import."""
    for path, text in named("rarkit-own", kind, part).texts().items():
        if path.endswith(".py"):
            tree = ast.parse(text)
            imported = {
                alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
            }
            assert not imported & {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
