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
from tests.shipped_recipes import WITHOUT_PLUGINS

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
    # The folder's name and the suffix are no reason to resemble each other.
    with pytest.raises(RecipeError, match=r"there is no recipe .*nope\.toml\. Check the path\.$"):
        load_recipe(str(Path(path).with_name("nope.toml")))
    with pytest.raises(RecipeError, match=rf"there is no recipe recipes/nope\.toml\. Check the path: it starts at {Path.cwd()}\.$"):
        load_recipe("recipes/nope.toml")
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


@pytest.mark.parametrize("given", [{"overrides": "train.steps=3"}, {"overrides": {"train.steps": 3}}, {"unset": "train"}])
def test_overrides_are_a_list(write, given):
    with pytest.raises(RecipeError, match=r"found .* where a list is needed, .*\.replace\(\{"):
        load_recipe(write(MINIMAL), **given)
    with pytest.raises(RecipeError, match=r"replace: found 'train.steps=3'; expected a dictionary"):
        load_recipe(write(MINIMAL)).replace("train.steps=3")


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


BASE = (
    MINIMAL
    + """
[sample]
top_k = 5
guidance = { name = "linear", scale = 2.0, start = 3.0 }

[evaluate]
"""
)


def test_what_a_base_sets_can_be_unset(write):
    write(BASE, "base.toml")
    child = """extends = "base.toml"
unset = ["evaluate", "train", "sample.top_k", "sample.guidance.start", "model"]
[model]
preset = "rar_b"
weights = "w.bin"
"""
    recipe = load_recipe(write(child, "child.toml"))
    assert (recipe.evaluate, recipe.train, recipe.sample.top_k) == (None, None, None)
    assert (recipe.sample.guidance.scale, recipe.sample.guidance.start) == (2.0, 1.0)
    assert (recipe.model.preset, recipe.model.hidden_size) == ("rar_b", None)
    # Unset is said before the file's own keys, and holds for the files above it only.
    grandchild = write(
        'extends = "child.toml"\nunset = ["model.preset"]\n[sample]\ntop_k = 7\n[model]\ndepth = 1\n'
        "hidden_size = 8\nnum_heads = 1\n",
        "grandchild.toml",
    )
    recipe = load_recipe(grandchild)
    assert (recipe.sample.top_k, recipe.model.preset, recipe.model.depth) == (7, None, 1)
    assert load_recipe(write(to_toml(recipe), "again.toml")).model_dump() == recipe.model_dump()


def test_the_command_line_unsets_before_it_sets(write):
    path = write(BASE.replace("[sample]", "micro_batch_size = 2\n[sample]"), "base.toml")
    recipe = load_recipe(path, ["sample.top_k=3"], unset=["sample", "evaluate", "train.micro_batch_size"])
    assert (recipe.sample.top_k, recipe.sample.guidance.name) == (3, "constant")
    assert (recipe.evaluate, recipe.train.micro_batch_size, recipe.train.steps) == (None, None, 2)
    assert recipe.command == (
        f"rarkit run {path} --unset=sample --unset=evaluate --unset=train.micro_batch_size --set=sample.top_k=3"
    )


@pytest.mark.parametrize(
    ("unset", "message"),
    [
        (
            '["sample.topk"]',
            "child.toml:2: unset: BASE sets no 'sample.topk'; did you mean 'sample.top_k'? It sets: title, dataset",
        ),
        ('["sample.temperature"]', "child.toml:2: unset: BASE sets no 'sample.temperature'"),
        ('["title.x"]', "child.toml:2: unset: BASE sets no 'title.x'"),
        ('["a b"]', "child.toml:2: unset: expected the dotted path of a key, as in sample.top_k, but got 'a b'"),
        ('"train"', 'child.toml:2: unset: expected a list of keys, as in unset = ["train", "sample.top_k"]'),
        ('["train"]', "child.toml: there is neither a [train] table nor model.weights"),
        ('["train.steps"]', "child.toml: train.steps: missing"),
    ],
)
def test_what_cannot_be_unset_is_said(write, unset, message):
    base = write(BASE, "base.toml")
    child = write(f'extends = "base.toml"\nunset = {unset}\n', "child.toml")
    with pytest.raises(RecipeError) as caught:
        load_recipe(child)
    assert message.replace("BASE", base) in str(caught.value)


def test_unset_without_a_base_is_refused(write):
    with pytest.raises(RecipeError, match=r"small\.toml:1: unset: there is nothing to unset, because this recipe extends no other"):
        load_recipe(write('unset = ["train"]\n' + BASE))
    with pytest.raises(RecipeError, match=r"--unset trian: .* sets no 'trian'; did you mean 'train'\?"):
        load_recipe(write(BASE), unset=["trian"])


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path):
    for name, text in (("base.toml", MINIMAL), ("child.toml", 'extends = "base.toml"\n[train]\nsteps = 3\n')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert load_recipe(str(tmp_path / "child.toml")).train.steps == 3


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sample.classes=3,7", "found '3,7'; expected a list: write sample.classes = [3, 7] (with --set, in quotes)"),
        ("sample.classes=3", "found 3; expected a list: write sample.classes = [3]"),
        ("sample.classes=(3, 7)", "write sample.classes = [3, 7]"),
        ("train.betas=0.9,0.95", "write train.betas = [0.9, 0.95]"),
        ("train.betas=[0.9]", "--set train.betas=[0.9]: train.betas.1: missing: set it"),
        ("scan_order=spiral", "scan_order: found 'spiral'; expected a table: set its keys, scan_order.name = \"spiral\""),
        ("sample.guidance.power=2", "sample.guidance.name: missing. Choose one of: constant, linear, power_cosine, interval."),
    ],
)
def test_values_of_the_wrong_shape_are_told_the_right_one(write, assignment, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(MINIMAL + "[sample]\n"), [assignment])
    assert message in str(caught.value)


def test_the_lists_that_messages_propose_are_valid(write):
    assert load_recipe(write(MINIMAL + "[sample]\n"), ["sample.classes = [3, 7]"]).sample.classes == (3, 7)


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
    assert WITHOUT_PLUGINS
    for path in WITHOUT_PLUGINS:
        jsonschema.validate(tomllib.loads(path.read_text()), schema)
        assert path.read_text().startswith("#:schema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**tomllib.loads(MINIMAL), "tokenizer": {"name": "nonsense"}}, schema)


def test_every_shipped_recipe_loads():
    for path in WITHOUT_PLUGINS:
        assert load_recipe(str(path)).recipe_name == path.stem
