"""Numbers of settings are finite and bounded, in every table and part."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

import rarkit
from rarkit import load_recipe
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.recipe.schema import Recipe
from rarkit.recipe.text import to_toml
from rarkit.registry.kinds import KINDS
from rarkit.sampling.guidance import Constant, Interval, Linear, PowerCosine
from rarkit.sampling.settings import SampleSettings

PARTS = [part for kind in KINDS for part in rarkit.parts().of_kind(kind).values()]
OWNERS = [Recipe, TrainSettings, SampleSettings, EvaluateSettings, Constant, Linear, PowerCosine, Interval, *PARTS]
MEANT = [(TrainSettings, "gradient_clip", number) for number in (math.inf, 1e300, 10**30)]
NUMBERS = (math.inf, -math.inf, math.nan, 1e300, -1e300, 10**30, -(10**30))


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_numbers_that_mean_nothing_are_refused(owner):
    for key in owner.model_fields:
        for number in NUMBERS:
            for value in (number, [number], [number, number]):
                if (owner, key, value) in MEANT:
                    continue
                with pytest.raises(ValidationError) as caught:
                    owner.model_validate({key: value})
                assert any(mistake["loc"][:1] == (key,) for mistake in caught.value.errors()), (key, value)


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_the_message_names_key_and_value(digits_recipe, number):
    with pytest.raises(RecipeError) as caught:
        load_recipe(digits_recipe, [f"train.learning_rate={number}"])
    assert f"train.learning_rate: found {number}; expected a finite number" in str(caught.value)


def test_a_gradient_clip_of_infinity_clips_nothing_and_is_written_down(digits_recipe, tmp_path):
    unclipped = load_recipe(digits_recipe, ["train.gradient_clip=inf"])
    assert unclipped.train.gradient_clip is None
    assert unclipped.train.identity() != load_recipe(digits_recipe).train.identity()
    (tmp_path / "again.toml").write_text(to_toml(unclipped))
    assert load_recipe(str(tmp_path / "again.toml")).train == unclipped.train
    assert TrainSettings.model_validate_json(unclipped.train.model_dump_json()) == unclipped.train
