"""Training is a function of (seed, step): batches, rates, groups, and resuming to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit.attention.plain import Plain
from rarkit.engine.degrees import degrees
from rarkit.engine.learning_rates import learning_rate
from rarkit.engine.optimizer import make_optimizer, takes_decay
from rarkit.engine.settings import TrainSettings
from rarkit.engine.trainer import Trainer
from rarkit.errors import PluginError, RarkitError
from rarkit.models import RAR, RARConfig
from rarkit.permutation_schedules.linear import Linear
from rarkit.runtime.machine import auto_precision
from rarkit.training.batches import dropped_labels, rows_of_step
from rarkit.training.likelihood import nats_per_image
from rarkit.training.next_token import NextToken
from tests.training.in_memory import InMemory

SCHEDULES = json.loads((Path(__file__).parents[1] / "data/parity/schedules.json").read_text())
SMALL = RARConfig(hidden_size=16, depth=2, num_heads=2, mlp_hidden_size=32, seq_len=6, codebook_size=8, num_classes=3)
LINEAR = Linear()


def settings(**changes):
    defaults = {
        "steps": 8,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "end_learning_rate": 1e-4,
        "warmup_steps": 2,
        "precision": "float32",
    }
    return TrainSettings(**(defaults | changes))


class Alone:
    """A trainer of one process, and the records of its steps."""

    def __init__(self, *, config=SMALL, attention=None, schedule=LINEAR, precision_before=None, seed=3, **changes):
        generator = np.random.default_rng(0)
        tokens, labels = generator.integers(0, 8, (10, 6)), generator.integers(0, 3, 10)
        self.model, chosen = RAR(config, attention, seed=1), settings(**changes)
        task = NextToken(
            self.model, InMemory(tokens), InMemory(labels), chosen, seed=seed, scan_order_L=np.arange(6), schedule=schedule
        )
        self.trainer = Trainer(task, chosen, seed=seed, device="cpu", degrees=degrees(chosen, 1), precision=precision_before)

    def advance(self):
        self.trainer.advance()
        [(record, _)] = self.trainer.records()
        return record

    @property
    def state(self):
        tensors = {name: tensor.clone() for name, tensor in self.trainer.tensors().items()}
        return tensors, self.trainer.facts, self.trainer.step

    def restore(self, tensors, facts, step):
        for name, tensor in self.trainer.tensors().items():
            tensor.copy_(tensors[name])
        self.trainer.step = step
        return self


trainer = Alone


def weights(of):
    return {name: weight.clone() for name, weight in of.model.state_dict().items()}


@given(st.integers(0, 2**63), st.integers(1, 30), st.integers(1, 40), st.integers(0, 20))
def test_every_row_is_seen_once_in_each_epoch(seed, batch, count, start):
    steps = -(-count // batch) * 2 + 1
    rows = np.concatenate([rows_of_step(seed, step, batch, count) for step in range(start, start + steps)])
    skip = -start * batch % count
    for epoch in range((len(rows) - skip) // count):
        part = rows[skip + epoch * count : skip + (epoch + 1) * count]
        np.testing.assert_array_equal(np.sort(part), np.arange(count))


def test_labels_are_dropped_as_often_as_asked():
    dropped = np.concatenate([dropped_labels(1, step, 200, 0.1) for step in range(50)])
    assert 0.08 < dropped.mean() < 0.12
    assert not dropped_labels(1, 0, 100, 0.0).any()


def test_learning_rate_is_the_released_one():
    about = SCHEDULES["learning_rate"]
    released = settings(
        learning_rate=about["base_lr"],
        end_learning_rate=about["end_lr"],
        warmup_steps=about["warmup_steps"],
        steps=about["total_steps"],
    )
    for step, rate in about["values"]:
        assert learning_rate(step, released) == pytest.approx(rate, rel=1e-9, abs=1e-15)


def test_weight_decay_groups_are_the_released_ones():
    model = RAR(SMALL, seed=1)
    decayed = {name for name, weight in model.named_parameters() if takes_decay(name, weight)}
    others = {name for name, _ in model.named_parameters()} - decayed
    assert decayed == set(SCHEDULES["weight_decay"]["decay"])
    assert others == set(SCHEDULES["weight_decay"]["no_decay"])
    optimizer = make_optimizer(model, settings(weight_decay=0.03))
    sizes = [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]
    assert sizes == [(len(decayed), 0.03), (len(others), 0.0)]


@pytest.mark.parametrize(
    "changes", [{}, {"optimizer": "muon", "ema_decay": 0.7, "learning_rate_schedule": "wsd", "decay_steps": 3}], ids=["", "others"]
)
def test_an_interrupted_training_ends_with_the_same_bits(changes):
    whole = trainer(**changes)
    records = [whole.advance() for _ in range(8)]
    first = trainer(**changes)
    early = [first.advance() for _ in range(5)]
    state = first.state
    torch.manual_seed(99)
    second = trainer(**changes).restore(*state)
    late = [second.advance() for _ in range(3)]
    assert early + late == records
    assert all(torch.equal(one, weights(second)[name]) for name, one in weights(whole).items())
    written = [each.trainer.weights("model") for each in (whole, second)]
    assert all(torch.equal(one, written[1][name]) for name, one in written[0].items())
    averaged = any(not torch.equal(one, weights(whole)[name]) for name, one in written[0].items())
    assert averaged == ("ema_decay" in changes)


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer().advance()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("changes", [{"micro_batch_size": 2}, {"activation_checkpointing": True}, {"activation_checkpointing": 2}])
@pytest.mark.parametrize(("attention_dropout", "attention"), [(0.0, None), (0.3, Plain().build())], ids=["none", "seeded"])
def test_ways_to_save_memory_give_the_same_gradients(changes, attention_dropout, attention):
    """With attention dropout too, where masks are drawn from seeds; modules' own dropout draws for a whole micro-batch at once."""
    config = SMALL.model_copy(update={"dropout": 0.0, "attention_dropout": attention_dropout})
    one, other = (trainer(config=config, attention=attention, **ways) for ways in ({}, changes))
    for each in (one, other):
        each.trainer.step = 2
        each.advance()
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(other)[name], weight, atol=2e-4, rtol=0)


def test_a_model_learns_what_there_is_to_learn():
    learner = trainer(steps=150, learning_rate=1e-2, schedule=Linear(start=0.3, end=0.6))
    records = [learner.advance() for _ in range(150)]
    assert np.mean([record["loss"] for record in records[:5]]) > 2.0
    assert np.mean([record["loss"] for record in records[-5:]]) < 1.0
    assert [record["step"] for record in records] == list(range(150))
    assert records[0]["random_ratio"] == 1
    assert records[-1]["random_ratio"] == 0


def test_bfloat16_trains_too():
    assert trainer(precision="bfloat16").advance()["loss"] == pytest.approx(trainer().advance()["loss"], abs=0.05)


def test_a_loss_that_is_no_number_is_an_error():
    broken = trainer()
    with torch.no_grad():
        broken.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(RarkitError, match=r"loss became nan at step 0, on rows \d+, .*\. Lower train\.learning_rate"):
        broken.advance()


def test_a_gradient_that_is_no_number_is_an_error():
    """The loss of this step is finite: after the last one, weights that are all NaN would be the finished model."""
    broken = trainer()
    broken.model.lm_head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        RarkitError, match=r"norm of the gradient became (inf|nan) at step 0, on rows \d+, .*\. Lower train\.learning_rate"
    ):
        broken.advance()


def sees_all(q, k, v, *, causal, dropout=None):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def unscaled(q, k, v, *, causal, dropout=None):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=9.0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", [sees_all, unscaled])
def test_a_kernel_that_is_no_causal_attention_is_found_before_training(attention, precision):
    before = list(RAR(SMALL, seed=1).state_dict().values()), torch.get_rng_state()
    honest = trainer(precision=precision, micro_batch_size=2)
    assert honest.model.training
    after = list(honest.model.state_dict().values()), torch.get_rng_state()
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    with pytest.raises(PluginError, match=rf"test_training\.{attention.__name__} does not compute causal attention.*off by \d+%"):
        trainer(attention=attention, precision=precision)


def test_likelihood_sums_to_one_over_all_images():
    tiny = RARConfig(hidden_size=16, depth=1, num_heads=2, mlp_hidden_size=16, seq_len=3, codebook_size=4, num_classes=2)
    model = RAR(tiny, seed=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    tokens = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    for order in ([0, 1, 2], [2, 0, 1]):
        nats = nats_per_image(model.eval(), tokens, np.ones(64, dtype=np.int64), np.array(order), batch_size=10, device="cpu")
        assert np.exp(-3 * nats).sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("lacks", [True, False])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_bfloat16_without_instructions_for_it_is_told(monkeypatch, recwarn, lacks, precision):
    monkeypatch.setattr("rarkit.engine.trainer.lacks_bfloat16", lambda device: lacks)
    trainer(precision=precision)
    warnings = [warning for warning in recwarn if "Set train.precision = 'float32'" in str(warning.message)]
    assert len(warnings) == (lacks and precision == "bfloat16")


@pytest.mark.parametrize(("flags", "precision"), [({"avx2"}, "float32"), ({"avx512f"}, "float32"), ({"amx_bf16"}, "bfloat16")])
def test_auto_is_what_the_processor_has_instructions_for(monkeypatch, recwarn, flags, precision):
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: frozenset(flags))
    assert trainer(precision="auto").trainer.precision == precision
    assert auto_precision("mps") == "float32"


@pytest.mark.parametrize("began", ["float32", "bfloat16"])
def test_a_training_that_goes_on_elsewhere_keeps_its_precision(monkeypatch, began):
    whole = trainer(precision=began)
    records = [whole.advance() for _ in range(4)]
    flags = {"float32": frozenset(), "bfloat16": frozenset({"avx512_bf16"})}
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: flags[began])
    here = trainer(precision="auto")
    early = [here.advance() for _ in range(2)]
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: flags["float32" if began == "bfloat16" else "bfloat16"])
    tensors, facts, step = here.state
    elsewhere = trainer(precision="auto", precision_before=facts.precision).restore(tensors, facts, step)
    assert elsewhere.trainer.precision == began
    assert early + [elsewhere.advance() for _ in range(2)] == records
