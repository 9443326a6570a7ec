"""The public pieces of the loop: same numbers for arrays and tensors, and nothing taken that is not what it should be."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rarkit.training
from rarkit.errors import GridError, UserError
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.linear import Linear
from rarkit.sampling import noise
from rarkit.scan_orders.raster import Raster
from rarkit.training import TrainSettings, draw_orders, dropped_labels, learning_rate, nats_per_image, rows_of_step

WHERE = {"seed": 3, "step": 5, "indices": range(4)}
NO_COUNTS = st.one_of(st.integers(-5, -1), st.floats(0.1, 5.0), st.just(True), st.just(2**40))


@given(st.permutations(range(6)), st.floats(0.0, 1.0), st.sampled_from(["int16", "int32", "int64", "uint8"]))
def test_arrays_tensors_and_lists_give_the_same_orders(order, ratio, dtype):
    drawn = draw_orders(np.array(order), ratio, **WHERE)
    assert drawn.dtype == np.int64
    assert np.array_equal(np.sort(drawn), np.tile(np.arange(6), (4, 1)))
    assert np.array_equal(draw_orders(np.array(order, dtype=dtype), ratio, **WHERE), drawn)
    assert draw_orders(np.array(order, dtype=dtype), ratio, **WHERE).dtype == np.int64
    assert np.array_equal(draw_orders(order, ratio, **WHERE), drawn)
    tensor = draw_orders(torch.tensor(order, dtype=getattr(torch, dtype)), ratio, **WHERE)
    assert tensor.dtype == torch.int64
    assert np.array_equal(tensor.numpy(), drawn)


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=6))
def test_orders_are_drawn_from_orders_alone(cells):
    if sorted(cells) == list(range(len(cells))):
        draw_orders(cells, 0.5, **WHERE)
        return
    for order in (cells, np.array(cells, np.int32), torch.tensor(cells)):
        with pytest.raises(GridError, match="exactly once"):
            draw_orders(order, 0.5, **WHERE)


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (np.arange(4.0), r"float64 \(4,\)"),
        (np.arange(4).reshape(2, 2), r"int64 \(2, 2\)"),
        (np.arange(0), r"int64 \(0,\)"),
        (torch.arange(4.0), r"float32 \(4,\)"),
        (Raster(), r"Raster\(name='raster'\)"),
        (Raster, "the class Raster"),
        ("raster", "'raster'"),
        (None, "None"),
        ([[0], [1, 2]], r"\[\[0\], \[1, 2\]\]"),
    ],
)
def test_orders_are_whole_numbers_in_a_row(order, told):
    message = rf"the order is {told}; pass the raster index visited at each step, .* as a scan order's order\(height, width\)"
    with pytest.raises(GridError, match=message):
        draw_orders(order, 0.5, **WHERE)
    with pytest.raises(GridError, match=message):
        nats_per_image(lambda *_: None, np.zeros((2, 4), int), [0, 1], order, batch_size=2)


@given(st.one_of(st.floats(), st.text(), st.none(), st.booleans()))
def test_seeds_are_whole_numbers(seed):
    draws = (
        lambda: draw_orders(np.arange(4), 0.5, seed=seed, step=0, indices=[0]),
        lambda: rows_of_step(seed, 0, 2, 4),
        lambda: dropped_labels(seed, 0, 4, 0.1),
    )
    for draw in draws:
        with pytest.raises(UserError, match=r"the seed is .*; it must be a whole number"):
            draw()


@given(st.one_of(st.floats().filter(lambda ratio: not 0 <= ratio <= 1), st.just("0.5"), st.just(None), st.just(True)))
def test_ratios_are_probabilities(ratio):
    with pytest.raises(UserError, match="the random ratio is"):
        draw_orders(np.arange(4), ratio, **WHERE)
    with pytest.raises(UserError, match="the probability of dropping a class is"):
        dropped_labels(0, 0, 4, ratio)


@given(NO_COUNTS)
def test_steps_and_counts_are_whole_numbers(number):
    with pytest.raises(UserError, match="the step is"):
        draw_orders(np.arange(4), 0.5, seed=0, step=number, indices=[0])
    for arguments in ((0, number, 4, 4), (0, 0, number, 4), (0, 0, 4, number)):
        with pytest.raises(UserError, match="must be a whole number from"):
            rows_of_step(*arguments)
    with pytest.raises(UserError, match="the step is"):
        dropped_labels(0, number, 4, 0.1)
    with pytest.raises(UserError, match="the step is"):
        learning_rate(number, TrainSettings(steps=10, batch_size=2))
    with pytest.raises(UserError, match="must be a whole number from"):
        Linear().random_ratio(number, 10)
    with pytest.raises(UserError, match="must be a whole number from"):
        Linear().random_ratio(0, number)


@pytest.mark.parametrize("indices", [[-1], [0.5], [[0, 1]], [2**32]])
def test_indices_are_whole_numbers(indices):
    with pytest.raises(UserError, match="sample indices"):
        draw_orders(np.arange(4), 0.5, seed=0, step=0, indices=indices)
    with pytest.raises(UserError, match="sample indices"):
        noise(0, indices, 4)


def test_a_schedule_is_asked_within_its_training():
    with pytest.raises(UserError, match="the step is 11; it must be a whole number from 0 to 10"):
        Linear().random_ratio(11, 10)


def test_own_schedules_are_asked_as_built_in_ones():
    class Own(PermutationSchedule):
        name: str = "own"

        def random_ratio(self, step, total):
            return 1 - step / total

    assert Own().random_ratio(np.int64(5), 10) == 0.5
    with pytest.raises(UserError, match="total is 0"):
        Own().random_ratio(0, 0)


def test_grids_have_whole_sides():
    with pytest.raises(GridError, match=r"4\.0×4"):
        Raster().order(4.0, 4)
    assert Raster().order(np.int64(2), 2).tolist() == [0, 1, 2, 3]


def test_nats_of_any_function_are_the_cross_entropy_along_the_order():
    class Own(torch.nn.Module):
        def forward(self, tokens, labels, orders):
            assert not self.training
            assert orders.shape == tokens.shape
            # Certain, up to 1 nat per step, of the code that the cell's number names.
            return torch.nn.functional.one_hot(orders % 3, 3).float() * (1 + labels[:, None, None])

    model, order = Own(), np.array([2, 0, 1])
    tokens = np.array([[0, 1, 2], [1, 1, 1]])
    expected = []
    for row, label in zip(tokens, (0, 1), strict=True):
        height = 1.0 + label
        norm = math.log(math.exp(height) + 2)
        expected.append(np.mean([norm - height * (row[cell] == cell % 3) for cell in order]))
    for given_as in (np.asarray, torch.as_tensor, lambda values: np.asarray(values).tolist()):
        nats = nats_per_image(model, given_as(tokens), given_as([0, 1]), given_as(order), batch_size=1)
        assert np.allclose(nats, expected)
    assert model.training
    assert nats_per_image(model, tokens[:0].reshape(0, 3), np.zeros(0, int), order, batch_size=4).shape == (0,)


@pytest.mark.parametrize(
    ("tokens", "labels"), [(np.zeros((2, 4), int), [0, 0]), (np.zeros((2, 3)), [0, 0]), (np.zeros((2, 3), int), [0])]
)
def test_nats_are_of_grids_with_a_class_each(tokens, labels):
    with pytest.raises(UserError, match="pass integers"):
        nats_per_image(lambda *_: torch.zeros(2, 3, 2), tokens, labels, [0, 1, 2], batch_size=2)
    with pytest.raises(UserError, match="the model returns logits"):
        nats_per_image(lambda *_: torch.zeros(2, 4, 2), np.zeros((2, 3), int), [0, 0], [0, 1, 2], batch_size=2)


def test_the_pieces_are_listed_without_torch():
    assert {"draw_orders", "dropped_labels", "rows_of_step", "learning_rate", "make_optimizer", "nats_per_image"} <= set(
        rarkit.training.__all__
    )
    code = "import rarkit.training, sys; rarkit.training.TrainSettings; rarkit.training.draw_orders([1, 0], 0.5, seed=0, step=0, "
    code += "indices=[0]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
