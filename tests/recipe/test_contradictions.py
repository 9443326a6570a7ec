"""What no machine and no data can make work is refused by validate, as plan and run refuse it."""

from __future__ import annotations

import pytest

from rarkit import load_recipe
from rarkit.errors import GridError, RecipeError
from rarkit.images import ImageInfo
from rarkit.pipeline.preflight import part_obstacles
from rarkit.recipe.contradictions import check_contradictions, contradictions
from rarkit.recipe.experiment import resolve

GUIDED = "sample.guidance={name = 'constant', scale = 2.0}"
LLAMA = ("model.name=llama_ar", "model.hidden_size=8", "model.depth=1", "model.num_heads=1")


@pytest.mark.parametrize(
    ("overrides", "table", "message"),
    [
        (("attention.name=flex", "model.attention_dropout=0.1"), "attention", "[attention] 'flex' cannot drop attention weights"),
        ((*LLAMA, "sample.precision=int8"), "sample", "model 'llama_ar' does not support sample.precision = 'int8'"),
        ((*LLAMA, "sample.kv_cache=float8"), "sample", "model 'llama_ar' does not support sample.kv_cache = 'float8'"),
        ((GUIDED, "model.class_dropout=0.0"), "sample.guidance", "because model.class_dropout is 0: set it to 0.1, say"),
    ],
)
def test_what_cannot_work_is_refused_by_all(digits_recipe, overrides, table, message):
    recipe = load_recipe(digits_recipe, overrides, unset=["permutation_schedule"])
    with pytest.raises(RecipeError) as caught:
        check_contradictions(recipe)
    assert message in str(caught.value)
    assert message in part_obstacles(recipe, "cuda")[table]


@pytest.mark.parametrize(
    "overrides", [(), ("model.class_dropout=0.0", "sample.guidance={name = 'constant', scale = 1.0}"), ("sample.precision=int8",)]
)
def test_what_can_work_somewhere_is_valid(digits_recipe, overrides):
    assert contradictions(load_recipe(digits_recipe, overrides)) == {}


def test_validate_says_so(digits_recipe, capsys, monkeypatch):
    from rarkit.cli import main

    monkeypatch.setattr("sys.argv", ["rarkit", "validate", digits_recipe, "--set", GUIDED, "--set", "model.class_dropout=0.0"])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert (stopped.value.code, printed.out) == (2, "")
    assert "model.class_dropout is 0" in printed.err


def test_a_feature_extractor_that_takes_no_such_images_is_known_before_training(digits_recipe):
    recipe = load_recipe(digits_recipe, ["evaluate.features={name = 'inception', weights = 'none.pth'}"])
    images = ImageInfo(8, 8, 2, ("a", "b"))
    with pytest.raises(GridError, match="takes grey or colour images, not 2 channels"):
        resolve(recipe, images)
