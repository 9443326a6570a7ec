"""Every shipped recipe validates and rehearses: all its stages run on stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from rarkit import load_recipe
from rarkit.workflow import rehearse

RECIPES = sorted(Path(__file__).parents[1].glob("recipes/*.toml"))


def test_there_are_recipes():
    assert "digits" in [path.stem for path in RECIPES]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_rehearses(path, tmp_path):
    recipe = load_recipe(str(path))
    done = rehearse(recipe, device="cpu", runs=tmp_path, quiet=True)
    assert done.folder == tmp_path / f"{path.stem}-rehearsal"
    assert {stage.action for stage in done.plan.stages} == {"run"}
    assert (done.folder / "samples.png").exists()
    assert "rehearsal" in (done.folder / "report.html").read_text().lower()
    assert done.metrics or recipe.evaluate is None


def test_a_rehearsal_samples_from_random_weights_where_a_recipe_names_some(tmp_path, digits_recipe):
    released = tmp_path / "released.toml"
    text = Path(digits_recipe).read_text()
    start, stop = text.index("[train]"), text.index("[sample]")
    released.write_text((text[:start] + text[stop:]).replace("[model]", '[model]\nweights = "not-here.bin"'))
    done = rehearse(load_recipe(str(released)), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert "train" not in [stage.name for stage in done.plan.stages]
    assert done.metrics
