"""A training gives the same however it is divided into passes and processes, and to the bit after a kill."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from vq_trainings import QUANTIZERS, VQ, fitted

from rarkit_vq.loss_settings import DiscriminatorSettings
from tests.processes import call, call_ranks

STARTS = {
    "kmeans": {},
    "discriminator": {
        "discriminator": DiscriminatorSettings(start_step=2, ahead_steps=1, ramp_steps=2, width=8, layers=1),
        "learning_rate": 1e-4,
    },
    **{
        name: {"start": "random", "quantizer": quantizer}
        for name, quantizer in {**QUANTIZERS, "vq": VQ(codes=16, dimensions=4, dead_below=0.5)}.items()
        if name != "even"
    },
}
"""One in two codes of ``vq`` is dead by that, and put to a vector of the batch."""


def learned(folder, start, count=1, kill_at=None, **settings):
    place = folder / "learned.npz"
    arguments = str(place), str(folder), {**STARTS[start], "checkpoint_every": 2, **settings}, kill_at
    done = call_ranks(count, folder, fitted, *arguments) if count > 1 else call(folder, fitted, *arguments)
    assert done.returncode == (0 if kill_at is None else -signal.SIGKILL), done.stderr
    return (dict(np.load(place)) if kill_at is None else None), done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process learns in one pass, by start; made once."""
    made = {}

    def of(start):
        if start not in made:
            made[start], _ = learned(tmp_path_factory.mktemp(start), start)
        return made[start]

    return of


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-4)
    for name, values in expected.items():
        # A step moves a weight by a thousandth.
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("start", STARTS)
def test_two_processes_learn_the_same(start, alone, tmp_path):
    found, log = learned(tmp_path, start, count=2)
    assert "2 processes (ddp)" in log
    assert_same(found, alone(start))


@pytest.mark.parametrize("start", ["kmeans", "vq", "cosine"])
def test_averages_move_once_a_step_however_many_passes_it_has(start, alone, tmp_path):
    found, log = learned(tmp_path, start, micro_batch_size=2)
    assert "4 passes of 2 samples a step" in log
    assert_same(found, alone(start))


@pytest.mark.parametrize("start", ["kmeans", "vq", "discriminator"])
def test_killed_it_goes_on_to_the_same_bits(start, alone, tmp_path):
    learned(tmp_path, start, kill_at=5)
    found, log = learned(tmp_path, start)
    assert "resuming from the checkpoint at step" in log
    expected = alone(start)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
