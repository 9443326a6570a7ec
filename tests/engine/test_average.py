"""The average of the weights: its mathematics, its state, and networks that are evaluated with it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rarkit.engine.average import Average, decay_at


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.same = self.weight
        self.fixed = nn.Parameter(torch.full((2,), 7.0), requires_grad=False)
        self.register_buffer("order", torch.arange(4))


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.01, 0.999))
def test_it_is_the_weighted_mean_of_all_weights_so_far(values, decay):
    net = Net()
    average = Average({"model": net}, decay)
    shares = [1.0]
    for step, value in enumerate(values):
        net.weight.data.fill_(value)
        average.update(step)
        now = decay_at(step, decay)
        shares = [*(share * now for share in shares), 1 - now]
    assert sum(shares) == pytest.approx(1)
    expected = sum(share * value for share, value in zip(shares, [0.0, *values], strict=True))
    torch.testing.assert_close(average.state()["average/model/weight"], torch.full((3,), expected), rtol=1e-4, atol=1e-4)


@given(st.floats(0.001, 0.99999), st.integers(0, 10**6))
def test_the_decay_grows_to_its_setting_and_stays(decay, step):
    assert 0 < decay_at(step, decay) <= decay_at(step + 1, decay) <= decay
    assert decay_at(10**9, decay) == decay


def test_a_short_training_forgets_its_first_weights():
    net = Net()
    average = Average({"model": net}, 0.9999)
    net.weight.data.fill_(1.0)
    for step in range(50):
        average.update(step)
    assert average.state()["average/model/weight"].min() > 1 - 1e-6


def test_networks_are_evaluated_with_it_and_have_their_own_weights_again():
    nets = {"first": Net(), "second": Net()}
    average = Average(nets, 0.5)
    for net in nets.values():
        net.weight.data.fill_(1.0)
    average.update(9)
    averaged = {name: tensor.clone() for name, tensor in average.state().items()}
    with average.in_networks():
        assert all(torch.equal(net.weight, averaged[f"average/{name}/weight"]) for name, net in nets.items())
        assert nets["first"].weight.mean() == 0.5
    assert all(net.weight.mean() == 1.0 for net in nets.values())
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in average.state().items())


def test_its_weights_load_into_a_network_of_the_kind():
    net = Net()
    average = Average({"model": net}, 0.5)
    net.weight.data.fill_(1.0)
    average.update(9)
    other = Net()
    other.load_state_dict(average.weights("model"))
    assert other.weight.tolist() == other.same.tolist() == [0.5] * 3
    assert other.fixed.tolist() == [7.0] * 2
    assert average.state().keys() == {"average/model/weight"}


def test_it_goes_on_from_its_state_with_the_same_bits():
    def train(net, average, steps):
        for step in steps:
            net.weight.data += torch.randn(3, generator=torch.Generator().manual_seed(step))
            average.update(step)

    whole = Net()
    expected = Average({"model": whole}, 0.8)
    train(whole, expected, range(6))
    first = Net()
    early = Average({"model": first}, 0.8)
    train(first, early, range(3))
    second = Net()
    second.load_state_dict(first.state_dict())
    late = Average({"model": second}, 0.8)
    for name, tensor in late.state().items():
        tensor.copy_(early.state()[name])
    train(second, late, range(3, 6))
    assert torch.equal(late.state()["average/model/weight"], expected.state()["average/model/weight"])
