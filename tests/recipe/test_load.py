"""Loading recipes: merging, overrides, and errors with file, line, key, the value found and the values allowed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from rarkit import load_recipe, parts
from rarkit.errors import RecipeError
from rarkit.recipe.text import json_schema, to_toml
from rarkit.scan_orders.spiral import Spiral

MINIMAL = """\
title = "small"

[dataset]
name = "digits"

[tokenizer]
name = "pixel"

[model]
hidden_size = 16
depth = 1
num_heads = 2

[train]
steps = 2
batch_size = 4
"""


@pytest.fixture
def write(tmp_path):
    def _write(text, name="small.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return _write


def test_a_minimal_recipe_gets_defaults(write):
    recipe = load_recipe(write(MINIMAL))
    assert recipe.recipe_name == "small"
    assert (recipe.seed, recipe.scan_order.name, recipe.attention.name) == (0, "raster", "sdpa")
    assert recipe.sample is None


def test_written_out_and_read_again_it_is_the_same(write):
    recipe = load_recipe(write(MINIMAL + "[sample]\n[evaluate]\n"), ["scan_order.name=spiral"])
    again = load_recipe(write(to_toml(recipe), "again.toml"))
    assert again.model_dump() == recipe.model_dump()
    assert again.identity() == recipe.identity()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 2", "stepz = 2"), "small.toml:15: train.stepz: no such key; did you mean 'steps'? Allowed: steps, batch_size"),
        (('"pixel"', '"pixle"'), "small.toml:7: tokenizer.name: no tokenizer is called 'pixle'; did you mean 'pixel'? Installed: "),
        (('name = "pixel"', 'name = "pixel"\nlevelz = 3'), "small.toml:8: tokenizer.levelz: no such key; did you mean 'levels'?"),
        (("steps = 2", 'steps = "many"'), "small.toml:15: train.steps: found 'many'; input should be a valid integer"),
        (("depth = 1", "depth = 0"), "small.toml:11: model.depth: found 0; input should be greater than 0"),
        (('name = "digits"', ""), "dataset.name: missing. Choose one of: "),
        (('title = "small"', ""), "small.toml: title: missing"),
        (("num_heads = 2", "num_heads = 3"), "model: hidden_size 16 is not divisible by num_heads 3"),
        (("depth = 1", 'preset = "rar_b"'), "model: preset = 'rar_b' already sets hidden_size, num_heads"),
        (("[train]\nsteps = 2\nbatch_size = 4", ""), "there is neither a [train] table nor model.weights: add one of them"),
        (("[train]", "[evaluate]\n[train]"), "[evaluate] needs samples: add a [sample] table"),
        (("[train]", "[tarin]"), "small.toml:14: tarin: no such key; did you mean 'train'?"),
    ],
)
def test_mistakes_are_reported_with_file_and_line(write, change, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(MINIMAL.replace(*change)))
    assert message in str(caught.value)


def test_all_mistakes_are_reported_at_once(write):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(MINIMAL.replace("steps = 2", "stepz = 2").replace("pixel", "pixle")))
    assert "stepz" in str(caught.value)
    assert "pixle" in str(caught.value)


def test_broken_toml_names_file_and_line(write):
    with pytest.raises(RecipeError, match=r"small.toml is not valid TOML: .*line 2"):
        load_recipe(write('title = "x"\nseed = = 2\n'))


def test_a_missing_file_suggests_its_neighbour(write):
    path = write(MINIMAL)
    with pytest.raises(RecipeError, match=r"there is no recipe .*smal\.toml\. Did you mean .*small\.toml"):
        load_recipe(path.replace("small.toml", "smal.toml"))


def test_a_binary_file_is_no_recipe(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(str(tmp_path / "x.toml"))


def test_a_folder_is_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match=r"is a folder\. Name a recipe in it"):
        load_recipe(str(tmp_path))


@pytest.mark.parametrize("bad", ["train.steps", "=3", "a b=1", "title.x=1"])
def test_malformed_overrides_are_refused(write, bad):
    with pytest.raises(RecipeError, match="--set"):
        load_recipe(write(MINIMAL), [bad])


def test_overrides_are_toml_or_words(write):
    recipe = load_recipe(write(MINIMAL), ["train.steps=7", "scan_order.name=spiral", 'title="a b"', "train.betas=[0.5, 0.6]"])
    assert (recipe.train.steps, recipe.title, recipe.train.betas) == (7, "a b", (0.5, 0.6))
    assert recipe.scan_order == Spiral()


def test_naming_another_part_drops_the_settings_of_the_first(write):
    path = write(MINIMAL.replace('name = "pixel"', 'name = "pixel"\nlevels = 17'))
    assert load_recipe(path, ["tokenizer.name=patch_kmeans"]).tokenizer.name == "patch_kmeans"


def test_extends_merges_tables_and_replaces_parts(write):
    write(MINIMAL.replace('"pixel"', '"pixel"\nlevels = 17'), "base/base.toml")
    child = write(
        'extends = "base/base.toml"\ntitle = "child"\n[train]\nsteps = 3\n[tokenizer]\nname = "patch_kmeans"\n', "child.toml"
    )
    recipe = load_recipe(child)
    assert (recipe.title, recipe.train.steps, recipe.train.batch_size) == ("child", 3, 4)
    assert recipe.tokenizer.name == "patch_kmeans"
    write(MINIMAL + "nonsense = 1\n", "base/base.toml")
    with pytest.raises(RecipeError, match=r"base\.toml:17: train.nonsense"):
        load_recipe(child)


def test_extending_in_a_circle_is_refused(write):
    write('extends = "b.toml"\n', "a.toml")
    with pytest.raises(RecipeError, match="circular"):
        load_recipe(write('extends = "a.toml"\n', "b.toml"))
    with pytest.raises(RecipeError, match=r"no recipe .*nowhere.toml \(extended by .*c.toml\)"):
        load_recipe(write('extends = "nowhere.toml"\n', "c.toml"))


def test_locations_are_relative_to_the_file_that_contains_them(write):
    text = MINIMAL.replace("hidden_size = 16\ndepth = 1\nnum_heads = 2", 'preset = "rar_b"\nweights = "w.bin"')
    text = text.replace("[train]\nsteps = 2\nbatch_size = 4", "")
    base = write(text, "deep/base.toml")
    child = write('extends = "deep/base.toml"\n', "child.toml")
    expected = str(Path(base).parent / "w.bin")
    assert Path(load_recipe(child).model.weights) == Path(expected)
    assert load_recipe(child, ["model.weights=w.bin"]).model.weights == "w.bin"
    assert load_recipe(child, ['model.weights="s3://b/w.bin"']).model.weights == "s3://b/w.bin"


def test_recipes_come_from_any_url(write):
    import fsspec

    fsspec.filesystem("memory").pipe_file("/recipes/m.toml", MINIMAL.encode())
    assert load_recipe("memory://recipes/m.toml").recipe_name == "m"


def test_the_schema_accepts_every_shipped_recipe_and_refuses_nonsense():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema(parts())
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    recipes = sorted(Path(__file__).parents[2].glob("recipes/*.toml"))
    assert recipes
    for path in recipes:
        jsonschema.validate(tomllib.loads(path.read_text()), schema)
        assert path.read_text().startswith("#:schema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**tomllib.loads(MINIMAL), "tokenizer": {"name": "nonsense"}}, schema)


def test_every_shipped_recipe_loads():
    for path in sorted(Path(__file__).parents[2].glob("recipes/*.toml")):
        assert load_recipe(str(path)).recipe_name == path.stem
