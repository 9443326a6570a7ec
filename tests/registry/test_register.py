"""Parts without a package: what registers, what it replaces, and that results of one version are never those of another."""

from __future__ import annotations

import json
import linecache
import pickle
import re
import textwrap
import types
from itertools import count
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rarkit
from rarkit.cli.show import plugins_as_json
from rarkit.errors import PluginError, RarkitError
from rarkit.pipeline.receipt import open_run
from rarkit.registry import registered
from rarkit.registry.kinds import KINDS, OBSERVERS, TABLES
from rarkit.registry.loader import present
from tests.processes import call, call_ranks
from tests.processes import rarkit as command
from tests.registry.own_parts import OVERRIDES, OWN, OwnOrder, OwnSchedule, run_and_draw

COLUMNS = '''
    from typing import Literal
    import numpy as np
    import rarkit

    class Columns(rarkit.ScanOrder):
        """One column after another."""

        name: Literal["columns"] = "columns"

        def order(self, height: int, width: int):
            return np.arange(height * width).reshape(height, width).T.ravel()
'''
_cells = count()


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr(registered, "_registered", {})


def notebook():
    """The variables of a new notebook."""
    return {"__name__": "__main__"}


def cell(code, variables, known=True):
    """Runs code as IPython runs a cell: its lines are known to ``linecache`` under a name that is no file."""
    code, name = textwrap.dedent(code), f"<ipython-input-{next(_cells)}>"
    if known:
        linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
    exec(compile(code, name, "exec", dont_inherit=True), variables)
    return variables.get("Columns")


def identity(code, **variables):
    return rarkit.register(cell(code, notebook() | variables), replace=True)().identity()


def test_each_kind_runs_is_sampled_from_and_opened_again(small_recipe, tmp_path):
    assert OWN.keys() == TABLES.keys()
    for part in OWN.values():
        assert rarkit.register(part) is part
    recipe = rarkit.load_recipe(small_recipe, OVERRIDES)
    planned = rarkit.plan(recipe, str(tmp_path / "store"))
    assert all(stage.action == "run" for stage in planned.stages)
    run = rarkit.run(recipe, str(tmp_path / "store"), runs=tmp_path / "runs", device="cpu", quiet=True)
    assert rarkit.plan(rarkit.load_recipe(small_recipe, OVERRIDES), str(tmp_path / "store")).nothing_to_do
    drawn = rarkit.sample(run.folder, [0], 1, device="cpu", quiet=True)
    np.testing.assert_array_equal(drawn.order_L, OwnOrder().order(2, 2))
    opened = open_run(run.folder)
    assert {type(part) for part in (opened.recipe.dataset, opened.recipe.model, opened.recipe.scan_order)} < set(OWN.values())
    stated = json.loads((run.folder / "receipt.json").read_text())["sources"]
    assert stated.keys() == OWN.keys() - OBSERVERS
    for table, part in OWN.items():
        if table in OBSERVERS:
            continue
        file = None if table != "scan_order" else stated[table]["file"]
        digest = registered.source_of(part)
        expected = {"name": part.part_name(), "of": f"tests.registry.own_parts.{part.__name__}", "file": file, "sha256": digest}
        assert stated[table] == expected


@pytest.mark.parametrize("table", OWN)
def test_a_part_is_known_at_once_and_says_where_it_is_from(table):
    kind, part = TABLES[table].name, OWN[table]
    before = rarkit.parts()
    assert rarkit.register()(part) is part
    assert part.part_name() not in before.of_kind(kind)
    known = rarkit.parts().of_kind(kind)
    assert known[part.part_name()] is part
    assert str(known.source(part.part_name())) == "this process (tests.registry.own_parts)"
    assert rarkit.parts() is rarkit.parts()
    listed = plugins_as_json(present())["plugins"][-1]
    assert (listed["distribution"], listed["parts"][0]["name"]) == ("this process", part.part_name())


def test_a_run_is_not_opened_where_its_parts_are_unknown(small_recipe, tmp_path):
    (tmp_path / "run").mkdir()
    ran = call(tmp_path / "run", run_and_draw, small_recipe, str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    folder = ran.stdout.strip()
    cure = (
        r"uses dataset 'own_data', the class tests\.registry\.own_parts\.OwnData.*not known here: in Python, call rarkit\.register"
    )
    with pytest.raises(PluginError, match=cure):
        rarkit.sample(folder, [0], 1, device="cpu", quiet=True)
    (tmp_path / "sample").mkdir()
    shell = call(tmp_path / "sample", command, "sample", folder, "--output", tmp_path / "a.png")
    assert shell.returncode == 2
    assert "own_data" in shell.stderr
    assert "install it as a plugin" in " ".join(shell.stderr.split())


def test_ranks_of_torchrun_register_it_in_their_script(small_recipe, tmp_path):
    ran = call_ranks(2, tmp_path, run_and_draw, small_recipe, str(tmp_path))
    assert ran.returncode == 0, ran.stderr


def test_its_source_is_in_the_fingerprints_of_the_stages_that_read_it(small_recipe):
    def fingerprints(code):
        rarkit.register(cell(code, notebook()))
        recipe = rarkit.load_recipe(small_recipe, ["scan_order.name=columns"])
        return {stage.name: stage.fingerprint for stage in rarkit.plan(recipe, "memory://registered").stages}

    first, edited = fingerprints(COLUMNS), fingerprints(COLUMNS.replace(".T.ravel()", ".T.ravel()[::-1].copy()"))
    assert {name for name in first if first[name] != edited[name]} == {"train", "sample", "evaluate"}
    assert fingerprints(COLUMNS) == first


USES = COLUMNS.replace(".T.ravel()", ".T.ravel().take(moved(height * width))").replace(
    "np.arange(height", "SIGN * np.arange(height"
)
HELPER = "def moved(count):\n    return np.roll(np.arange(count), by())\n\ndef by():\n    return 1\n"


@pytest.mark.parametrize(
    "change",
    [
        {"SIGN": 2},
        {"SIGN": np.float32(1)},
        {"SIGN": np.zeros(2000)},
        {"SIGN": [np.zeros(2000)]},
        {"SIGN": OwnSchedule(end=0.75)},
        {"helper": HELPER.replace("return 1", "return 2")},
        {"helper": HELPER + "moved.__defaults__ = (3,)\n"},
    ],
)
def test_what_it_uses_from_outside_is_in_the_fingerprint(change):
    def source(SIGN=1, helper=HELPER):
        variables = notebook() | {"SIGN": SIGN, "np": np}
        cell(helper, variables)
        return identity(USES, **variables)["source"]

    assert source() == source()
    assert source(**change) != source()


def test_a_class_s_bases_closures_and_defaults_are_in_the_fingerprint():
    base = COLUMNS.replace("class Columns", "class Base") + "\n    class Columns(Base):\n        '''x'''\n"
    assert identity(base) == identity(base)
    assert identity(base)["source"] != identity(base.replace(".T.ravel()", ".T.ravel()[::-1].copy()"))["source"]
    body = textwrap.indent(textwrap.dedent(COLUMNS), "    ").replace(".ravel()", ".ravel() + by")
    body = body.replace("        def", "        shift: int = by\n\n        def")
    made = [identity(f"def make(by):\n{body}\n    return Columns\n\nColumns = make({by})") for by in (0, 0, 1)]
    assert made[0] == made[1] != made[2]


def test_what_it_does_not_use_is_not_in_the_fingerprint():
    assert identity(COLUMNS, height=3, unused=object()) == identity(COLUMNS, height=4)


def test_values_are_those_of_now():
    variables = notebook() | {"SIGN": 1, "np": np}
    cell(HELPER, variables)
    part = rarkit.register(cell(USES, variables))
    before = part().identity()
    variables["SIGN"] = 2
    assert part().identity() != before


def test_without_source_it_is_refused_with_the_cure():
    with pytest.raises(PluginError, match=r"no source text of __main__\.Columns.*Define it in a file or a notebook cell"):
        rarkit.register(cell(COLUMNS, notebook(), known=False))
    assert "columns" not in rarkit.parts().scan_orders
    variables = notebook() | {"SIGN": 1, "np": np}
    cell(HELPER, variables, known=False)
    with pytest.raises(PluginError, match=r"no source text of __main__\.moved"):
        rarkit.register(cell(USES, variables))().identity()
    with pytest.raises(PluginError, match=r"SIGN, which Columns uses, is <object object at .*cannot be told from others"):
        identity(USES, SIGN=object())


def test_a_cell_that_is_run_again_replaces_its_class_and_no_other_does():
    first, again = (rarkit.register(cell(COLUMNS, notebook())) for _ in range(2))
    assert rarkit.parts().scan_orders["columns"] is again is not first
    other = cell(COLUMNS.replace("class Columns", "class Others"), variables := notebook()) or variables["Others"]
    with pytest.raises(PluginError, match=r"scan order 'columns' of __main__\.Columns already.*Others another name.*replace=True"):
        rarkit.register(other)
    assert rarkit.parts().scan_orders["columns"] is again
    assert rarkit.register(other, replace=True) is other
    assert rarkit.parts().scan_orders["columns"] is other


def test_an_installed_part_is_shadowed_only_if_told_so(small_recipe, small_finished):
    spiral = cell(COLUMNS.replace('"columns"', '"raster"'), notebook())
    with pytest.raises(PluginError, match=r"there is a scan order 'raster' of rarkit .*replace=True"):
        rarkit.register(spiral)
    installed = rarkit.parts().scan_orders["raster"]
    assert rarkit.register(installed) is installed
    assert "source" not in installed().identity()
    rarkit.register(spiral, replace=True)
    store = small_finished.plan.store.url
    planned = rarkit.plan(rarkit.load_recipe(small_recipe, ["scan_order.name=raster"]), store)
    assert [planned[name].action for name in ("tokenize", "train")] == ["cached", "run"]
    with pytest.raises(PluginError, match=r"used an installed scan order 'raster'.*registered in its place"):
        open_run(small_finished.folder)


def test_a_run_or_bundle_is_not_opened_with_another_version_of_its_part(small_recipe, tmp_path, monkeypatch):
    rarkit.register(cell(COLUMNS, notebook()))
    recipe = rarkit.load_recipe(small_recipe, ["scan_order.name=columns"])
    run = rarkit.run(recipe, str(tmp_path / "store"), until="train", runs=tmp_path / "runs", device="cpu", quiet=True)
    rarkit.register(cell(COLUMNS, notebook()))
    assert open_run(run.folder).recipe.scan_order.name == "columns"
    rarkit.plan(recipe, str(tmp_path / "store"))
    bundle = rarkit.load(run, device="cpu").save(tmp_path / "columns.safetensors")
    assert b"ipython-input" not in (tmp_path / "columns.safetensors").read_bytes()
    edited = rarkit.register(cell(COLUMNS.replace(".T", ""), notebook()))
    with pytest.raises(
        PluginError, match=r"another version of scan order 'columns'.*Register the class as it was.*or run the recipe"
    ):
        open_run(run.folder)
    with pytest.raises(
        PluginError, match=r"the bundle .* used another version of scan order 'columns', the class __main__\.Columns, than"
    ):
        rarkit.load(bundle, device="cpu")
    monkeypatch.setattr(registered, "_registered", {})
    with pytest.raises(
        PluginError, match=r"the bundle .* uses scan order 'columns', the class __main__\.Columns, which its script def"
    ):
        rarkit.load(bundle, device="cpu")
    rarkit.register(edited)
    with pytest.raises(PluginError, match=r"as it was before another class of this name was registered\. Make the recipe anew"):
        rarkit.plan(recipe, str(tmp_path / "store"))
    assert recipe.content_digest != rarkit.load_recipe(small_recipe, ["scan_order.name=columns"]).content_digest


def test_what_was_put_into_a_recipe_without_being_registered_counts_by_its_source_too(small_recipe, small_finished):
    recipe, store = rarkit.load_recipe(small_recipe), small_finished.plan.store.url
    shadow = cell(COLUMNS.replace('"columns"', '"raster"'), notebook())
    planned = rarkit.plan(recipe.model_copy(update={"scan_order": shadow()}), store)
    assert [planned[name].action for name in ("tokenize", "train")] == ["cached", "run"]
    with pytest.raises(PluginError, match="no source text"):
        rarkit.plan(recipe.model_copy(update={"scan_order": cell(COLUMNS, notebook(), known=False)()}), store)


@pytest.mark.parametrize("wrong", [int, OwnOrder(), types, rarkit.Component])
def test_what_is_no_part_is_refused(wrong):
    with pytest.raises(PluginError, match=r"takes a class derived from one of rarkit\.Dataset"):
        rarkit.register(wrong)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_unfinished_class_is_refused(kind):
    base = getattr(rarkit, kind.public[0])
    with pytest.raises(PluginError, match="leaves methods undefined"):
        rarkit.register(base)


def test_recipes_with_registered_parts_pickle_and_are_replaced_in(small_recipe):
    part = rarkit.register(cell(COLUMNS, notebook()))
    recipe = rarkit.load_recipe(small_recipe, ["scan_order.name=columns"])
    pickled = pickle.dumps(recipe)
    assert pickle.loads(pickled).identity() == recipe.identity()
    assert type(recipe.replace({"seed": 3}).scan_order) is part
    again = rarkit.register(cell(COLUMNS, notebook()))
    assert type(recipe.replace({"seed": 3}).scan_order) is again
    rarkit.register(cell(COLUMNS.replace(".T", ""), notebook()))
    with pytest.raises(PluginError, match="of another process used another version of scan order 'columns'"):
        pickle.loads(pickled)
    for use in (lambda: recipe.replace({"seed": 3}), lambda: pickle.dumps(recipe)):
        with pytest.raises(RarkitError, match=r"scan_order: the class __main__\.Columns is neither installed nor registered"):
            use()


@pytest.mark.parametrize("part", OWN.values(), ids=OWN)
def test_registered_parts_pickle(part):
    rarkit.register(part)
    one = part(hidden_size=8, depth=1, num_heads=2) if part.kind == "models" else part()
    assert pickle.loads(pickle.dumps(one)) == one


@given(st.text())
@example("")
@example("a/b")
@example("a b")
@example("columns\n")
@example("x" * 101)
def test_names_are_what_recipes_and_commands_can_type(name):
    part = cell(COLUMNS.replace('"columns"', repr(name)), notebook())
    with mock.patch.object(registered, "_registered", {}):
        if re.fullmatch(r"[\w.+-]{1,100}", name):
            assert rarkit.register(part).part_name() == name
        else:
            with pytest.raises(PluginError, match=r"Columns has the name .*; .* 1 to 100 letters, digits, and any of"):
                rarkit.register(part)


def test_an_unknown_name_is_still_an_error_of_recipes(small_recipe):
    with pytest.raises(RarkitError, match="no scan order is called 'columns'"):
        rarkit.load_recipe(small_recipe, ["scan_order.name=columns"])
