"""Numbers of settings are finite and bounded, in every table and part."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

import rarkit
from rarkit import load_recipe
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.recipe.schema import Recipe
from rarkit.recipe.text import to_toml
from rarkit.registry.component import Settings
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


@pytest.mark.parametrize("truth", [True, False, np.True_, [True], (0, False)], ids=repr)
@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_true_and_false_are_no_numbers(owner, truth):
    for key, field in owner.model_fields.items():
        if field.annotation is bool:
            continue
        with pytest.raises(ValidationError) as caught:
            owner.model_validate({key: truth})
        assert any(mistake["loc"][:1] == (key,) for mistake in caught.value.errors()), key


def test_true_and_false_are_no_numbers_in_settings_of_others():
    class Mine(Settings):
        count: int | None = None
        share: Annotated[float, Field(ge=0)] = 0.5
        sizes: tuple[Annotated[int, Field(gt=0)], ...] = ()
        switch: bool | int = False
        either: Literal["auto"] | int = "auto"
        mixed: tuple[int, bool] = (1, True)

    wrong = {"count": True, "share": False, "sizes": [1, True], "either": np.False_}
    with pytest.raises(ValidationError) as caught:
        Mine(**wrong, switch=True, mixed=(2, False))
    told = {(mistake["loc"], mistake["type"]) for mistake in caught.value.errors()}
    assert told == {(("count",), "int_type"), (("share",), "float_type"), (("sizes", 1), "int_type"), (("either",), "int_type")}
    assert Mine(switch=True, mixed=(2, False)).switch is True


@pytest.mark.parametrize(("path", "kind"), [("train.steps", "integer"), ("seed", "integer"), ("sample.temperature", "number")])
def test_true_is_refused_from_files_python_and_the_command_line(digits_recipe, path, kind):
    message = rf"{path}: found True; input should be a valid {kind}"
    with pytest.raises(RecipeError, match=message):
        load_recipe(digits_recipe, [f"{path}=true"])
    with pytest.raises(RecipeError, match=message):
        load_recipe(digits_recipe).replace({path: True})
    with pytest.raises(RecipeError, match=message):
        load_recipe(digits_recipe).replace({path: np.True_})


def test_text_that_spells_a_number_is_one(digits_recipe):
    """TOML knows no ``.9``: after ``--set`` it is a bare word, and so text."""
    for value, number in (("1", 1.0), (".9", 0.9), ('"0.5"', 0.5), ("1e-1", 0.1)):
        assert load_recipe(digits_recipe, [f"sample.temperature={value}"]).sample.temperature == number
    assert load_recipe(digits_recipe, ["train.warmup_steps=007"]).train.warmup_steps == 7
