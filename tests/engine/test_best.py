"""Weights that are chosen by held-out samples, and what a task moves once a step."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from rarkit.cache.store import Store
from rarkit.engine.task import Task
from rarkit.engine.watching import Watcher
from rarkit.errors import NotFiniteError, PluginError
from rarkit.training import Learning
from tests.engine.measured_task import (
    HELD_OUT,
    SETTINGS,
    Measured,
    Pictured,
    as_lists,
    rows,
    showing,
    trains,
    trains_apart,
    trains_often,
    trains_shown,
)
from tests.processes import call_ranks


def trained(every=1, task=None, learning=None, **changes):
    return (learning or Learning()).train(task or Measured(), SETTINGS.model_copy(update=changes), seed=0, best_every=every)


def error(task):
    held_out = rows((2, index) for index in range(HELD_OUT))
    with torch.no_grad():
        return float((task.networks["net"](held_out["inputs"]) - held_out["targets"]).square().mean())


@pytest.fixture(scope="module")
def best():
    return trained()


def test_the_weights_are_those_of_a_training_that_ended_at_the_best_step(best):
    assert 0 < best.best_step < SETTINGS.steps, "the case is not one that overshoots"
    assert best.measured["step"].tolist() == list(range(SETTINGS.steps + 1))
    assert best.best_step == int(best.measured["held_out_error"].argmin())
    shorter = Learning().train(Measured(), SETTINGS.model_copy(update={"steps": best.best_step}), seed=0)
    for name, weight in shorter.weights["net"].items():
        assert torch.equal(weight, best.weights["net"][name]), name


def test_errors_are_means_of_all_held_out_samples(best):
    """Before the first step, and after it."""
    task = Measured()
    before = error(task)
    Learning().train(task, SETTINGS.model_copy(update={"steps": 1}), seed=0)
    np.testing.assert_allclose(best.measured["held_out_error"][:2], [before, error(task)], rtol=1e-6)
    assert (best.measured["held_out_miss"] ** 2 <= best.measured["held_out_error"]).all()


def test_it_is_measured_at_both_ends_and_changes_no_step(best):
    seldom, never = trained(every=4), Learning().train(Measured(), SETTINGS, seed=0)
    assert seldom.measured["step"].tolist() == [0, 4, 8, 9]
    assert never.measured == {}
    assert never.best_step is None
    for name, values in best.log.items():
        np.testing.assert_array_equal(values, never.log[name])


def test_measurements_before_the_task_says_so_do_not_count(best):
    late = Measured()
    late.best_from = best.best_step + 2
    found = trained(task=late)
    errors = found.measured["held_out_error"]
    assert found.best_step == late.best_from + int(errors[late.best_from :].argmin())
    assert errors.min() < errors[found.best_step]
    shorter = Learning().train(Measured(), SETTINGS.model_copy(update={"steps": found.best_step}), seed=0)
    assert torch.equal(shorter.weights["net"]["line.weight"], found.weights["net"]["line.weight"])


def test_the_average_is_what_is_measured_and_kept():
    task = Measured()
    averaged = trained(every=SETTINGS.steps, task=task, ema_decay=0.9)
    assert averaged.best_step == SETTINGS.steps
    task.networks["net"].load_state_dict(averaged.weights["net"])
    assert averaged.measured["held_out_error"][-1] == pytest.approx(error(task), rel=1e-6)


class Tied(Pictured):
    """One of its weights has two names."""

    def __init__(self):
        super().__init__()
        self.networks["net"].same = self.networks["net"].line


@pytest.mark.parametrize("average", [None, 0.5])
def test_the_last_picture_shows_what_is_kept_too(average):
    task, settings = Tied(), SETTINGS.model_copy(update={"ema_decay": average})
    learning, shown = showing()
    found = learning.train(task, settings, seed=0, best_every=1, preview_every=2)
    assert 0 < found.best_step < SETTINGS.steps, "the case is not one in which earlier weights are kept"
    ended, label = Learning().train(Tied(), settings, seed=0), f"outputs, kept (step {found.best_step})"
    assert sorted(shown) == [0, 2, 4, 6, 8, SETTINGS.steps]
    assert list(shown[8]) == ["grey", "outputs"]
    assert list(shown[SETTINGS.steps]) == ["grey", "outputs", label]
    for name, weights in (("outputs", ended.weights), (label, found.weights)):
        pictured = Tied()
        pictured.networks["net"].load_state_dict(weights["net"])
        with torch.no_grad():
            outputs = pictured.previews(pictured.networks)["outputs"]
        np.testing.assert_array_equal(shown[SETTINGS.steps][name], outputs)
    untouched = Tied()
    Learning().train(untouched, settings, seed=0, best_every=1)
    for name, weight in untouched.networks["net"].state_dict().items():
        assert torch.equal(weight, task.networks["net"].state_dict()[name]), name


def test_weights_that_are_kept_and_last_are_shown_once():
    learning, shown = showing()
    slow = SETTINGS.model_copy(update={"learning_rate": 1e-3})
    assert learning.train(Pictured(), slow, seed=0, best_every=1, preview_every=9).best_step == SETTINGS.steps
    assert list(shown[SETTINGS.steps]) == ["grey", "outputs"]


def test_processes_that_share_weights_show_what_is_kept(tmp_path):
    learning, shown = showing()
    learning.train(Pictured(), SETTINGS, seed=0, best_every=1, preview_every=9)
    done = call_ranks(2, tmp_path, trains_shown, str(tmp_path / "shown.pt"))
    assert done.returncode == 0, done.stderr
    of_two = torch.load(tmp_path / "shown.pt", weights_only=True)
    assert list(of_two) == list(shown[SETTINGS.steps])
    for name, row in shown[SETTINGS.steps].items():
        outputs = (np.frombuffer(np.asarray(values, np.uint8).tobytes(), np.float32) for values in (of_two[name], row))
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stop", [1, 5, 8])
@pytest.mark.parametrize("micro", [4, 2])
def test_interrupted_it_gives_the_same_bits(stop, micro, tmp_path):
    expected, notes, whole = trained(every=2, micro_batch_size=micro), [], []
    trained(every=2, micro_batch_size=micro, learning=Learning(log=whole.append))
    output = Store(str(tmp_path)).output("fit", "cafe")

    def fail(look):
        if look.trainer.step == stop:
            raise ZeroDivisionError

    with output.writing({}), pytest.raises(ZeroDivisionError):
        Learning(output=output).train(
            Measured(),
            SETTINGS.model_copy(update={"micro_batch_size": micro}),
            seed=0,
            best_every=2,
            watchers=[Watcher(1, fail)],
        )
    torch.manual_seed(stop)
    with output.writing({}):
        found = trained(every=2, micro_batch_size=micro, learning=Learning(output=output, log=notes.append))
    assert as_lists(found) == as_lists(expected)
    assert found.best_step == expected.best_step
    assert found.weights["net"].keys() == expected.weights["net"].keys() >= {"mean"}
    for name, weight in expected.weights["net"].items():
        assert torch.equal(weight, found.weights["net"][name]), name
    assert sorted(map(json.dumps, notes)) == sorted(map(json.dumps, whole))


@pytest.mark.parametrize("changes", [{}, {"data_parallel": "fsdp"}, {"micro_batch_size": 1}])
def test_two_processes_measure_as_one(changes, tmp_path):
    """Of five samples, one process has three and the other two."""
    done = call_ranks(2, tmp_path, trains, str(tmp_path / "trained.pt"), changes)
    assert done.returncode == 0, done.stderr
    weights, log, measured = torch.load(tmp_path / "trained.pt", weights_only=True)
    expected = trained(every=2)
    for found, one in zip((log, measured), as_lists(expected), strict=True):
        assert found.keys() == one.keys()
        for name, values in one.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-3 if "norm" in name else 1e-5, err_msg=name)
    for name, weight in expected.weights["net"].items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro", [4, 1])
def test_a_task_moves_once_a_step_however_many_passes(micro):
    task = Measured()
    log = Learning().train(task, SETTINGS.model_copy(update={"micro_batch_size": micro}), seed=0).log
    assert task.calls == SETTINGS.steps
    assert log["samples"].tolist() == [SETTINGS.batch_size] * SETTINGS.steps
    mean = torch.zeros(3)
    for step in range(SETTINGS.steps):
        mean.lerp_(task.batch(step, range(SETTINGS.batch_size))["inputs"].mean(0), 0.5)
    torch.testing.assert_close(task.networks["net"].mean, mean)
    assert len({float(draw) for draw in task.drawn}) == SETTINGS.steps


def test_trainings_of_processes_end(tmp_path):
    """The group's last holder must not wait, with Python's lock held, for threads of gloo that need it."""
    done = call_ranks(2, tmp_path, trains_often)
    assert done.returncode == 0, done.stderr


def test_processes_that_move_apart_are_told(tmp_path):
    done = call_ranks(2, tmp_path, trains_apart)
    assert done.returncode != 0
    assert "mean of the network 'net' differ between processes after 9 steps" in done.stderr


class Silent(Measured):
    held_out_samples = 0


class Unwritten(Measured):
    held_out_batch = Task.held_out_batch


class Unmeasured(Measured):
    errors = Task.errors


class Nameless(Measured):
    def errors(self, networks, batch):
        return {"miss": batch["targets"]}


class Whole(Measured):
    def errors(self, networks, batch):
        return {"error": batch["targets"].mean()}


class Infinite(Measured):
    def errors(self, networks, batch):
        return {"error": batch["targets"] / 0}


@pytest.mark.parametrize(
    ("task", "raised", "said"),
    [
        (Unwritten, PluginError, "Unwritten has held_out_samples, but no held_out_batch"),
        (Unmeasured, PluginError, "Unmeasured has held_out_samples, but no errors"),
        (Silent, PluginError, "has no held_out_samples"),
        (Nameless, PluginError, r"returned \['miss'\]; 'error' must be among them"),
        (Whole, PluginError, r"returned 'error' as \(\); it must be one number a sample, \(4,\)"),
        (Infinite, NotFiniteError, r"became (inf|-inf|nan) after 0 steps.*There is no checkpoint"),
    ],
)
def test_what_cannot_be_measured_is_refused(task, raised, said):
    with pytest.raises(raised, match=said):
        trained(task=task())
