"""Paths in public are ``str | os.PathLike``."""

from __future__ import annotations

import inspect
import os

import pytest

import rarkit
import rarkit.models
from rarkit.datasets.image_folder import ImageFolder
from rarkit.inference.export import export_model
from rarkit.recipe.make import AnyRecipe

PLACES = {"path", "store", "runs", "folder", "place", "file", "source", "tokenizer"}
PARTS_BY_NAME = {"make_recipe"}
"""Where ``tokenizer`` is a part of a recipe."""


def places():
    for module in (rarkit, rarkit.models):
        for name in module.__all__:
            value = getattr(module, name)
            methods = vars(value).items() if isinstance(value, type) and value.__name__ in ("Drawing", "Pipeline") else []
            public = [(f"{name}.{inner}", function) for inner, function in methods if not inner.startswith("_")]
            for where, function in [(name, value), *public]:
                if inspect.isfunction(function) and where not in PARTS_BY_NAME:
                    for parameter in inspect.signature(function).parameters.values():
                        if parameter.name in PLACES:
                            yield pytest.param(parameter, id=f"{where}-{parameter.name}")


@pytest.mark.parametrize("parameter", list(places()))
def test_places_in_signatures_may_be_path_objects(parameter):
    assert "os.PathLike[str]" in parameter.annotation or "AnyRecipe" in parameter.annotation
    assert "PathLike" in str(AnyRecipe)


class Place(os.PathLike):
    """No ``pathlib`` path, and a text that is no path."""

    def __init__(self, path):
        self.path = str(path)

    def __fspath__(self):
        return self.path

    def __str__(self):
        return "no path"


def test_any_path_object_is_a_place(small_finished, small_recipe, tmp_path):
    recipe, store = Place(small_recipe), Place(small_finished.plan.store.root)
    assert rarkit.plan(recipe, store).nothing_to_do == rarkit.plan(str(small_recipe), os.fspath(store)).nothing_to_do
    again = rarkit.run(small_finished.plan.recipe, store, runs=Place(tmp_path / "runs"), device="cpu", quiet=True)
    assert again.folder.parent == tmp_path / "runs"
    model = rarkit.load(Place(again.folder), store=store, device="cpu")
    model.save(Place(tmp_path / "one.safetensors"))
    assert rarkit.load(Place(tmp_path / "one.safetensors"), device="cpu").class_names == model.class_names
    drawing = rarkit.sample(Place(again.folder), [0], 1, store=store, device="cpu", quiet=True)
    assert drawing.save(Place(tmp_path / "images.png")) == [str(tmp_path / "images.png")]
    written = export_model(Place(again.folder), Place(tmp_path / "model.safetensors"), store=store)
    assert written == str(tmp_path / "model.safetensors")
    loaded = rarkit.models.load_rar(Place(written))
    rarkit.models.save_rar(loaded, Place(tmp_path / "again.safetensors"))
    assert (tmp_path / "again.safetensors").exists()
    assert rarkit.models.load_rar(Place(again.folder)).config == loaded.config


def test_settings_that_are_places_take_path_objects(tmp_path):
    assert ImageFolder(path=Place(tmp_path)).path == str(tmp_path)
    tables = {
        "tokenizer": "pixel",
        "model": {"hidden_size": 32, "depth": 1, "num_heads": 2},
        "train": {"steps": 3, "batch_size": 8},
    }
    recipe = rarkit.make_recipe(dataset={"name": "image_folder", "path": Place(tmp_path)}, **tables)
    assert recipe.dataset.path == str(tmp_path)
