"""Places that are written in a recipe."""

from __future__ import annotations

import os

import pytest

from rarkit.datasets.npz import Npz
from rarkit.registry.component import Placed


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
        ("zip://recipes::s3://bucket/all.zip", "x.npz", "zip://recipes::s3://bucket/all.zip/x.npz"),
    ],
)
def test_a_place_is_relative_to_the_recipe_and_written_without_detours(folder, written, place):
    assert Npz(path=Placed(written, folder)).path == place
    assert Npz(path=written).path == written


def test_a_detour_through_a_link_stays(tmp_path):
    (tmp_path / "shared/recipes").mkdir(parents=True)
    (tmp_path / "shared/x.npz").touch()
    os.symlink(tmp_path / "shared/recipes", tmp_path / "recipes")
    found = Npz(path=Placed("../x.npz", f"{tmp_path}/recipes")).path
    assert os.path.samefile(found, tmp_path / "shared/x.npz")
