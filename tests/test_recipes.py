"""Every shipped recipe validates and rehearses: all its stages run on stand-ins."""

from __future__ import annotations

import getpass
import json
import tempfile
from pathlib import Path

import pytest

from rarkit import load_recipe, plan, run
from rarkit.errors import RarkitWarning
from rarkit.estimate.estimate import estimate
from rarkit.pipeline.kept_receipts import NUMBER
from rarkit.pipeline.run import rehearse, small_version
from rarkit.recipe.rehearsal import rehearsal
from tests.shipped_recipes import NEEDS, WITHOUT_PLUGINS

ROOT = Path(__file__).parents[1]
RECIPES = WITHOUT_PLUGINS


def test_there_are_recipes():
    assert len(RECIPES) == 10
    for name, plugin in NEEDS.items():
        assert (ROOT / f"recipes/{name}.toml").exists()
        assert f"{name}.toml" in (ROOT / f"plugins/{plugin}/tests/test_recipes.py").read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for all rehearsals: those of a model's sizes have stages in common, which run once."""
    return str(tmp_path_factory.mktemp("rehearsals") / "store")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_rehearses(path, store, tmp_path):
    recipe = load_recipe(str(path))
    done = run(small_version(recipe, "cpu", str(tmp_path)), store, device="cpu", runs=tmp_path, quiet=True)
    assert done.folder == tmp_path / f"{path.stem}-rehearsal"
    actions = {stage.name: stage.action for stage in done.plan.stages}
    # Each size has its own settings of sampling; what another one made has the same fingerprint, so it is what would be made.
    assert (actions.pop("sample"), actions.pop("evaluate", "run")) == ("run", "run")
    assert set(actions.values()) <= {"run", "cached"}
    assert (done.folder / "samples.png").exists()
    assert "rehearsal" in (done.folder / "report.html").read_text().lower()
    assert done.metrics or recipe.evaluate is None


def test_a_rehearsal_begins_from_nothing_and_leaves_only_results(tmp_path, digits_recipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    done = rehearse(load_recipe(digits_recipe), device="cpu", quiet=True)
    assert {stage.action for stage in done.plan.stages} == {"run"}
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"digits-rehearsal", NUMBER}
    # Torch makes a folder of its own there, the first time in a process.
    assert {path.name for path in (tmp_path / "temporary").iterdir()} <= {f"torchinductor_{getpass.getuser()}"}


def test_a_rehearsal_has_patches_for_all_codes(digits_recipe):
    recipe = load_recipe(digits_recipe, ["tokenizer.codes=1024"])
    small = rehearsal(recipe, "cpu")
    assert small.dataset.count("train") * 16 >= 4 * 1024
    assert len(small.tokenizer.fit(small.dataset.open("train"), 0)["codebook"]) == 1024


def test_a_rehearsal_trains_in_float32_where_bfloat16_is_emulated_and_says_so(monkeypatch):
    recipe = load_recipe(str(ROOT / "recipes/rar_l.toml"))
    monkeypatch.setattr("rarkit.runtime.processors.lacks_bfloat16", lambda device: device.type == "cpu")
    with pytest.warns(RarkitWarning, match="no instructions for bfloat16.* trains in float32 instead"):
        assert rehearsal(recipe, "cpu").train.precision == "float32"
    assert rehearsal(recipe, "cuda").train.precision == "bfloat16"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_plans_without_data_weights_or_a_gpu(path, tmp_path, monkeypatch):
    monkeypatch.setattr("rarkit.runtime.machine.has_cuda", lambda: False)
    planned = plan(load_recipe(str(path)), str(tmp_path / "store"))
    found = estimate(planned)
    assert (found.train is None, found.sample is None) == (planned.recipe.train is None, False)
    if path.stem.startswith("digits"):
        assert planned.obstacle is None
        assert not found.missing
        return
    preset = planned.recipe.model.preset
    manifest = json.loads((Path(__file__).parent / f"data/parity/{preset}.manifest.json").read_text())
    assert found.model.parameter_count() == manifest["parameters"]
    assert found.sample.images == 50_000
    assert {stage.fingerprint for stage in planned.stages} == {None}
    assert set(found.missing) == {"tokenizer", "GPU", "evaluate.features", "dataset" if found.train else "model"}
    assert all(word not in said for said in found.missing.values() for word in ("/../", "recipes"))
    if found.train:
        # 1,281,167 images ten times, and 50,000: 256 tokens of 2 bytes each, and a label.
        assert found.images == {"train": 12_811_670, "test": 50_000}
        assert found.disk["tokens"] == 12_861_670 * (512 + 4)
        assert found.train.fits
        assert found.train.micro_batch <= found.train.largest_micro_batch
        assert found.train.flops == pytest.approx(6 * manifest["parameters"] * 257 * 2048 * 250_000, rel=0.1)


def test_a_rehearsal_samples_from_random_weights_where_a_recipe_names_some(tmp_path, digits_recipe):
    released = tmp_path / "released.toml"
    text = Path(digits_recipe).read_text()
    start, stop = text.index("[train]"), text.index("[sample]")
    released.write_text((text[:start] + text[stop:]).replace("[model]", '[model]\nweights = "not-here.bin"'))
    done = rehearse(load_recipe(str(released)), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert "train" not in [stage.name for stage in done.plan.stages]
    assert done.metrics


SCHEDULES = json.loads((Path(__file__).parent / "data/parity/schedules.json").read_text())
# Temperature, scale and power of the released samplings.
RELEASED = {"b": (1.0, 16.0, 2.75), "l": (1.02, 15.5, 2.5), "xl": (1.02, 6.9, 1.5), "xxl": (1.02, 8.0, 1.2)}


@pytest.mark.parametrize("size", RELEASED)
def test_rar_recipes_have_the_released_settings(size):
    trained, released = (load_recipe(str(ROOT / f"recipes/rar_{size}{end}.toml")) for end in ("", "_released"))
    rates, ratios, train = SCHEDULES["learning_rate"], SCHEDULES["random_ratio"], trained.train
    assert (train.steps, train.warmup_steps) == (rates["total_steps"], rates["warmup_steps"])
    assert (train.learning_rate, train.end_learning_rate) == (rates["base_lr"], rates["end_lr"])
    assert (train.batch_size, train.betas, train.weight_decay, train.gradient_clip) == (2048, (0.9, 0.96), 0.03, 1.0)
    assert train.precision == "bfloat16"
    for step, ratio in ratios["values"]:
        assert trained.permutation_schedule.random_ratio(step, train.steps) == pytest.approx(ratio, abs=1e-12)
    assert (trained.model.dropout, trained.model.attention_dropout, trained.model.class_dropout) == (0.1, 0.1, 0.1)
    for recipe in (trained, released):
        assert recipe.model.preset == f"rar_{size}"
        assert (recipe.sample.temperature, recipe.sample.guidance.scale, recipe.sample.guidance.power) == RELEASED[size]
        assert (recipe.sample.top_k, recipe.sample.top_p, recipe.sample.npz) == (None, None, True)
        assert recipe.sample.per_class * recipe.dataset.info().num_classes == 50_000
        assert recipe.tokenizer.grid(recipe.dataset.info()) == (16, 16)
        features = recipe.evaluate.features
        assert features.distance_names() == {"features": "fid", "spatial": "sfid"}
        assert features.reference.endswith("weights/VIRTUAL_imagenet256_labeled.npz")
    assert (trained.evaluate.yardsticks, released.evaluate.yardsticks) == (True, False)
    assert released.train is None
    assert released.model.weights.endswith(f"weights/rar_{size}.bin")
