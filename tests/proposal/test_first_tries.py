"""What people meet who try ``rarkit new`` for the first time: small images, little time, few classes, odd places."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rarkit import plan
from rarkit.errors import UserError
from rarkit.proposal.budget import Budget
from rarkit.proposal.data_choices import Size, sizes
from rarkit.proposal.new_recipe import check_target, new_recipe, write_recipe
from rarkit.proposal.proposal import Proposer
from rarkit.proposal.timing import Seconds
from rarkit.recipe.load import load_recipe
from tests.proposal.small import clock, filled, proposed, survey_of


def recipe_for(survey, minutes=10.0):
    return Proposer(survey, Budget(minutes, "cpu", learned=True), clock, lambda *_: 0.1).propose("x").as_recipe()


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_images_of_a_few_pixels_get_a_tokenizer_that_can_cut_them(side):
    tokenizer = recipe_for(survey_of(400, side))["tokenizer"]
    assert tokenizer["name"] == "patch_kmeans"
    assert side % tokenizer["patch"] == 0


@pytest.mark.parametrize("side", [3, 5])
def test_a_folder_of_tiny_images_becomes_a_recipe_that_plans(tmp_path, side):
    for name in "ab":
        filled(tmp_path / "tiny" / name, 10, width=side, height=side)
    write_recipe(proposed(tmp_path / "tiny", tmp_path / "recipe.toml"))
    assert plan(load_recipe(tmp_path / "recipe.toml"), str(tmp_path / "store")).obstacle is None


def test_images_of_32_pixels_get_64_tokens_if_there_is_time():
    survey = survey_of(2000, 32)
    assert recipe_for(survey, minutes=10)["tokenizer"]["downsample"] == 4
    assert recipe_for(survey, minutes=0.5)["tokenizer"]["downsample"] == 8
    arrays = replace(survey, shape=(32, 32, 3))
    assert sizes(arrays, Budget(10, "cpu", learned=True)) == [Size(32, 32, 8), Size(32, 32, 4)]


def test_a_run_that_takes_longer_than_was_asked_for_is_told_with_the_least():
    slow = lambda experiment: Seconds(1.0, 30.0)  # noqa: E731
    survey = survey_of(400, 64)
    proposal = Proposer(survey, Budget(1, "cpu", learned=True), slow, lambda *_: 1.0).propose("x")
    minutes = sum(proposal.seconds.values()) / 60
    (said,) = (remark for remark in proposal.remarks if "asked for" in remark)
    assert f"about {minutes:.1f} minutes, longer than the minute that was asked for" in said
    assert f"--minutes {int(np.ceil(minutes))} " in said
    enough = Proposer(survey, Budget(60, "cpu", learned=True), clock, lambda *_: 0.1).propose("x")
    assert not enough.remarks


@pytest.mark.parametrize("classes", [1, 2])
def test_held_out_images_are_looked_at_five_times(classes):
    train = recipe_for(survey_of(400, 64, classes))["train"]
    assert train["evaluate_every"] == train["steps"] // 5
    assert "evaluate_every" not in recipe_for(survey_of(400, 64, classes, test=0))["train"]


def test_a_run_without_classes_plans(tmp_path):
    filled(tmp_path / "flat", 20)
    write_recipe(proposed(tmp_path / "flat", tmp_path / "recipe.toml"))
    recipe = load_recipe(tmp_path / "recipe.toml")
    assert (recipe.evaluate, recipe.train.evaluate_every) == (None, recipe.train.steps // 5)
    assert plan(recipe, str(tmp_path / "store")).obstacle is None


def test_what_cannot_be_read_is_not_counted(tmp_path):
    for name in "ab":
        filled(tmp_path / "data" / name, 15)
    (tmp_path / "data/a/00.png").write_bytes(b"none")
    recipe = proposed(tmp_path / "data")
    held_out = recipe.survey.rows_N[[bool(look.fault) for look in recipe.survey.looks]][0] >= recipe.survey.images["train"]
    assert recipe.survey.classes == (("a", 12 - (not held_out)), ("b", 12))


def test_one_of_many_is_singular(tmp_path):
    filled(tmp_path / "data" / "a", 15)
    filled(tmp_path / "data" / "b", 15)
    Image.new("RGBA", (40, 40), (9, 9, 9, 0)).save(tmp_path / "data/b/00.png")
    assert "1 of 30 is transparent in places." in proposed(tmp_path / "data").found()


@pytest.mark.parametrize(("name", "cure"), [("photos", "photos.toml"), ("there", "recipe.toml"), ("a.json", "a.json.toml")])
def test_a_recipe_needs_its_suffix(tmp_path, name, cure):
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=f"whose name ends in .toml. Write -o .*{cure}, say"):
        check_target(tmp_path / name, force=False)


def test_an_address_that_does_not_answer_is_no_wrong_form():
    pytest.importorskip("aiohttp")
    with pytest.raises(UserError, match=r"cannot be reached.*Check the address and your network"):
        new_recipe("http://127.0.0.1:9/photos.csv", "recipe.toml")
