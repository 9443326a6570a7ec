"""The reference and evaluate stages: what their views cover, and how a metric gets into the report."""

from __future__ import annotations

import json
import shutil
from typing import final

import pytest

from rarkit import load_recipe, plan, run
from rarkit.evaluation.metric import Evaluation, Metric
from rarkit.evaluation.metrics import METRICS
from rarkit.evaluation.record import MetricRecord
from rarkit.features.inception import Inception
from rarkit.recipe.experiment import resolve
from rarkit.stages import evaluate
from rarkit.stages.evaluate import Evaluate
from rarkit.stages.reference import Reference, opens_data


@final
class MeanFeature(Metric):
    name = "mean_feature"

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        return [
            evaluation.compare(
                "mean_feature",
                lambda features_MF: float(features_MF.mean()),
                lambda images: (images["features"],),
                explanation="A metric that a test adds.",
            )
        ]


def test_a_metric_in_the_list_is_measured_and_shown(finished, tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    shutil.copytree(finished.plan.store.root, store)
    monkeypatch.setattr(evaluate, "METRICS", (*METRICS, MeanFeature()))
    planned = {stage.name: stage for stage in plan(finished.plan.recipe, store).stages}
    assert [name for name, stage in planned.items() if stage.action == "run"] == ["evaluate"]
    assert planned["evaluate"].reason == "settings changed: metrics.mean_feature: default → 1"
    done = run(finished.plan.recipe, store=store, device="cpu", runs=tmp_path / "runs", quiet=True)
    *others, added = done.metrics
    assert others == finished.metrics
    assert added.name == "mean_feature"
    assert added.low <= added.high
    assert list(added.yardsticks) == ["real test images", "reconstructions", "uniform tokens"]
    assert json.loads((done.folder / "metrics.json").read_text())["metrics"] == [metric.to_json() for metric in done.metrics]
    assert "mean feature" in (done.folder / "report.html").read_text()


def identities(recipe):
    experiment = resolve(recipe)
    return {stage.name: stage.identity(stage.view(experiment)) for stage in (Reference(), Evaluate())}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=9", {"reference", "evaluate"}),
        ("evaluate.bootstrap=3", {"evaluate"}),
        ("evaluate.batch_size=3", set()),
        ("evaluate.features.width=8", {"reference", "evaluate"}),
        ("evaluate.yardsticks=false", {"reference", "evaluate"}),
        ("tokenizer.codes=9", {"reference", "evaluate"}),
        ("scan_order.name=spiral", {"evaluate"}),
        ("attention.name=plain", {"evaluate"}),
        ("sample.precision=bfloat16", {"evaluate"}),
        ("sample.per_class=5", set()),
    ],
)
def test_views_cover_what_is_read(digits_recipe, override, changed):
    before, after = (identities(load_recipe(digits_recipe, more)) for more in ([], [override]))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_published_reference_depends_on_no_data_of_the_recipe(digits_recipe, tmp_path):
    """Its features stay the same with another dataset, tokenizer or seed."""
    features = Inception(weights=None, reference=str(tmp_path / "batch.npz"))
    (tmp_path / "batch.npz").write_bytes(b"")

    def view(*overrides):
        recipe = load_recipe(digits_recipe, ["evaluate.yardsticks=false", *overrides])
        recipe = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"features": features})})
        assert not opens_data(recipe)
        return Reference().view(resolve(recipe)).model_copy(update={"images": None})

    assert view() == view("seed=9", "tokenizer.codes=9", "dataset.test_fraction=0.3")
    assert view().dataset is None


def test_recipes_without_evaluation_have_neither_stage(digits_recipe):
    recipe = load_recipe(digits_recipe).model_copy(update={"evaluate": None})
    for stage in (Reference(), Evaluate()):
        assert stage.upstream(recipe) is None
        assert stage.view(resolve(recipe)) is None
    assert not opens_data(recipe)
