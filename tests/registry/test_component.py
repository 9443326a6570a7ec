"""Settings in Python: what a call is told, and places that are written in a recipe."""

from __future__ import annotations

import os
import pickle
from typing import final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rarkit.datasets.npz import Npz
from rarkit.errors import UserError
from rarkit.registry.component import ABSOLUTE, Component, Placed, Settings
from rarkit.sampling import PowerCosine
from rarkit.scan_orders.raster import Raster


@pytest.mark.parametrize(
    ("folder", "written", "place"),
    [
        ("recipes", "../data/x.npz", "data/x.npz"),
        (".", "x.npz", "x.npz"),
        ("/a/b", "../x.npz", "/a/x.npz"),
        ("s3://bucket/recipes", "../data/x.npz", "s3://bucket/data/x.npz"),
        ("file:///a/b", "./x.npz", "file:///a/b/x.npz"),
        ("recipes", "/data/x.npz", "/data/x.npz"),
        ("recipes", "s3://bucket/x.npz", "s3://bucket/x.npz"),
        # Of several places, each is relative to the recipe; of a chain of file systems, the one at its end.
        ("recipes", "../a.tar::b.tar::/c.tar", "a.tar::recipes/b.tar::/c.tar"),
        ("recipes", "zip://x.npz::all.zip", "zip://x.npz::recipes/all.zip"),
        ("/a", "simplecache::s3://bucket/x.npz", "simplecache::s3://bucket/x.npz"),
        ("/a", "data", "/a/data"),  # also the name of a protocol
        ("zip://recipes::s3://bucket/all.zip", "x.npz", "zip://recipes/x.npz::s3://bucket/all.zip"),
    ],
)
def test_a_place_is_relative_to_the_recipe_and_written_without_detours(folder, written, place):
    assert Npz(path=Placed(written, folder)).path == place
    assert Npz(path=written).path == written


@pytest.mark.parametrize("name", ["data", "data/x.npz", "memory", "a.tar::data", "zip://x::data"])
def test_written_for_any_folder_all_paths_are_absolute(name):
    path = Npz(path=name).model_dump(context={ABSOLUTE: True})["path"]
    chain, _, last = name.rpartition("::")
    changed = os.path.abspath(chain) if chain == "a.tar" else chain
    assert path == (f"{changed}::" if chain else "") + os.path.abspath(last)


def test_a_detour_through_a_link_stays(tmp_path):
    (tmp_path / "shared/recipes").mkdir(parents=True)
    (tmp_path / "shared/x.npz").touch()
    os.symlink(tmp_path / "shared/recipes", tmp_path / "recipes")
    found = Npz(path=Placed("../x.npz", f"{tmp_path}/recipes")).path
    assert os.path.samefile(found, tmp_path / "shared/x.npz")


@final
class Knob(Settings):
    turns: int
    label: str = ""


def test_settings_by_position_are_refused_with_their_names():
    for call, told in (
        (lambda: Knob(3), r"Knob takes its settings by name\. Write Knob\(turns=…, label=…\)\."),
        (lambda: PowerCosine(4.0, 1.5), r"PowerCosine takes its settings by name\. Write PowerCosine\(scale=…, power=…\)\."),
        (lambda: Raster(3), r"Raster takes its settings by name\. It has none\."),
    ):
        with pytest.raises(UserError, match=told):
            call()


@given(st.text(min_size=1).filter(lambda name: name not in ("turns", "label")))
def test_a_setting_that_does_not_exist_is_told_with_those_that_do(name):
    with pytest.raises(ValidationError) as refused:
        Knob(turns=1, **{name: 2})
    (note,) = refused.value.__notes__
    assert note.startswith(f"Knob has no setting {name!r}")
    assert note.endswith(" Write Knob(turns=…, label=…).")
    with pytest.raises(ValidationError) as refused:
        Knob(turn=1)
    assert refused.value.__notes__ == ["Knob has no setting 'turn'; did you mean 'turns'? Write Knob(turns=…, label=…)."]
    with pytest.raises(ValidationError) as refused:
        Knob(turns="many")
    assert not hasattr(refused.value, "__notes__")


def test_who_changes_settings_is_told_how_to_make_others():
    knob = Knob(turns=1)
    with pytest.raises(ValidationError, match="frozen") as refused:
        knob.turns = 2
    assert "make others: a new Knob(…)" in refused.value.__notes__[0]
    assert knob.turns == 1
    assert pickle.loads(pickle.dumps(knob)) == knob


def test_type_checkers_are_told_that_fields_are_read_only_and_that_a_name_is_not_needed():
    # What dataclass_transform says is what mypy and pyright go by; nox -s types runs them.
    told = type(Component).__dataclass_transform__
    assert (told | told["kwargs"])["frozen_default"]  # Python 3.11 keeps it among the keywords that it does not know
    assert told["kw_only_default"]
    assert not Component.model_fields["name"].is_required()
