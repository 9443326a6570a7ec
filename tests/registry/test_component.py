"""Places that are written in a recipe."""

from __future__ import annotations

import os

import pytest

from rarkit.datasets.npz import Npz
from rarkit.registry.component import ABSOLUTE, Component, Placed


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


def test_type_checkers_are_told_that_fields_are_read_only_and_that_a_name_is_not_needed():
    # What dataclass_transform says is what mypy and pyright go by; nox -s types runs them.
    told = type(Component).__dataclass_transform__
    assert (told | told["kwargs"])["frozen_default"]  # Python 3.11 keeps it among the keywords that it does not know
    assert told["kw_only_default"]
    assert not Component.model_fields["name"].is_required()
