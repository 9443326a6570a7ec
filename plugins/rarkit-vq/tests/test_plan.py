"""What ``rarkit plan`` says of the tokenizer's training, held against the training."""

from __future__ import annotations

import json
import runpy
import sys

import pytest
from vq_trainings import QUANTIZERS, blobs, few_steps, random_start, small

from rarkit.training import Learning
from rarkit_vq import learning
from rarkit_vq.loss_settings import DiscriminatorSettings

JUDGED = DiscriminatorSettings(start_step=3, ahead_steps=1, ramp_steps=1, width=8, layers=2)
PARTS = {
    "kmeans": small(),
    "judged": random_start("fsq", discriminator=JUDGED),
    "unjudged": random_start("fsq"),
    **{name: random_start(name) for name in QUANTIZERS},
}


def lines(tables, prefix=""):
    """Tables as TOML, whose single values are like JSON's."""
    for name, table in tables.items():
        yield f"[{prefix}{name}]\n"
        yield from (f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict))
        yield from lines({key: value for key, value in table.items() if isinstance(value, dict)}, f"{prefix}{name}.")


@pytest.fixture
def planned(tmp_path, monkeypatch, capsys):
    """What the command says of ``fit``, which must not take the time that a codebook's beginning takes."""

    def begins(*arguments):
        raise AssertionError("a plan needs no codes")

    def plan(part):
        tables = {
            "dataset": {"name": "photographs", "size": 16, "train_images": 60, "test_images": 2},
            "tokenizer": part.model_dump(mode="json", exclude_none=True),
            "model": {"name": "rar", "hidden_size": 8, "depth": 1, "num_heads": 2},
            "train": {"steps": 1, "batch_size": 2},
        }
        (tmp_path / "a.toml").write_text('title = "A"\n' + "".join(lines(tables)))
        arguments = ["rarkit", "plan", str(tmp_path / "a.toml"), "--store", str(tmp_path / "store"), "--json"]
        with monkeypatch.context() as patch:
            patch.setattr(learning, "begin", begins)
            patch.setattr(sys, "argv", arguments)
            with pytest.raises(SystemExit) as end:
                runpy.run_module("rarkit", run_name="__main__")
        assert not end.value.code
        return json.loads(capsys.readouterr().out)["needs"]["fit"]

    return plan


@few_steps
@pytest.mark.parametrize("name", PARTS)
def test_the_plan_knows_what_each_training_holds(name, planned):
    part, engine = PARTS[name], Learning()
    fit = planned(part)
    assert fit["unknown"] is None
    assert (fit["steps"], fit["images"], fit["training"]["micro_batch"]) == (part.steps, part.batch_size, part.batch_size)
    part.learn(blobs(60), 0, engine)
    memory, weights = fit["training"]["memory"], engine.finished[0].weights
    assert set(fit["parameters"]) == set(weights)
    # Buffers that no file has are among the weights, too.
    assert memory["best"] == sum(tensor.nbytes for state in weights.values() for tensor in state.values()) <= memory["weights"]
    assert memory["average"] == 4 * sum(fit["parameters"].values())
    assert memory["optimizer"] > 2 * memory["average"]


def test_a_discriminator_that_begins_late_counts(planned):
    judged, unjudged = (planned(PARTS[name])["training"] for name in ("judged", "unjudged"))
    assert judged["step_flops"] > unjudged["step_flops"]
    assert judged["memory"]["activations"] > unjudged["memory"]["activations"]


def test_passes_are_as_large_as_the_settings_say(planned):
    whole, parts = (planned(small(micro_batch_size=micro))["training"] for micro in (None, 2))
    assert (parts["micro_batch"], parts["accumulation"]) == (2, 4)
    assert parts["step_flops"] == whole["step_flops"]
    assert parts["memory"]["activations"] < whole["memory"]["activations"] / 3
