"""Which weights each optimizer trains, at which rates, and what Muon does to a matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rarkit.engine.muon import Muon
from rarkit.engine.optimizer import hidden_matrices, make_optimizer, make_optimizers, set_learning_rates
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.models import RAR, RARConfig
from rarkit.models.llama_ar.llama_ar import LlamaAR
from tests.models.llama_ar.small import TINY

SMALL = RARConfig(hidden_size=16, depth=2, num_heads=2, mlp_hidden_size=32, seq_len=6, codebook_size=8, num_classes=3)


def settings(**changes):
    return TrainSettings(**({"steps": 10, "batch_size": 1, "learning_rate": 0.1, "warmup_steps": 2} | changes))


def test_muon_trains_the_matrices_inside_blocks_and_adamw_the_rest():
    parts = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    assert set(hidden_matrices(RAR(SMALL))) == {f"blocks.{block}.{part}.weight" for block in range(2) for part in parts}
    llama = LlamaAR(TINY)
    parts = {f"self_attn.{part}_proj" for part in "qkvo"} | {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    expected = {f"model.layers.{block}.{part}.weight" for block in range(TINY.depth) for part in parts}
    assert set(hidden_matrices(llama)) == expected


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_weight_has_one_optimizer(optimizer):
    model = RAR(SMALL)
    groups = [group for each in make_optimizers(model, settings(optimizer=optimizer)) for group in each.param_groups]
    trained = [id(weight) for group in groups for weight in group["params"]]
    assert sorted(trained) == sorted(id(weight) for weight in model.parameters())


def test_beside_muon_adamw_has_the_released_groups():
    model, chosen = RAR(SMALL), settings(optimizer="muon", weight_decay=0.2)
    muon, adamw = make_optimizers(model, chosen)
    alone = make_optimizer(model, chosen)
    hidden = {id(weight) for weight in hidden_matrices(model).values()}
    for group, whole in zip(adamw.param_groups, alone.param_groups, strict=True):
        assert [id(weight) for weight in group["params"]] == [id(one) for one in whole["params"] if id(one) not in hidden]
        assert group["weight_decay"] == whole["weight_decay"]
    assert [group["weight_decay"] for group in muon.param_groups] == [0.2]


def test_the_rate_of_muon_is_a_multiple_of_adamws():
    chosen = settings(optimizer="muon", muon_learning_rate=0.3)
    muon, adamw = make_optimizers(RAR(SMALL), chosen)
    for step in range(10):
        rate = set_learning_rates([muon, adamw], step, chosen)
        assert {group["lr"] for group in adamw.param_groups} == {rate}
        assert [group["lr"] for group in muon.param_groups] == [pytest.approx(3 * rate)]
    own, _ = make_optimizers(RAR(SMALL), settings(optimizer="muon"))
    rate = set_learning_rates([own], 5, settings())
    assert [group["lr"] for group in own.param_groups] == [rate]


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_muon_is_torchs(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    weight, *gradients = (torch.empty(rows, columns).normal_(generator=generator) for _ in range(4))
    theirs, ours = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    rates = {"lr": 0.2, "weight_decay": 0.3}
    for optimizer in (torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **rates), Muon([ours], **rates)):
        (trained,) = optimizer.param_groups[0]["params"]
        for gradient in gradients:
            trained.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_muon_makes_all_singular_values_of_an_update_alike():
    matrix = nn.Parameter(torch.zeros(24, 40))
    matrix.grad = torch.randn(24, 40, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -1.5, 40))
    Muon([matrix], lr=1.0).step()
    values = torch.linalg.svdvals(matrix.detach()) / (0.2 * 40**0.5)
    assert values.min() > 0.5
    assert values.max() < 1.3
    before = torch.linalg.svdvals(matrix.grad)
    assert before.max() > 5 * before.min()


def test_an_interrupted_training_with_muon_goes_on_with_the_same_bits():
    def train(model, optimizers, steps):
        for step in steps:
            for index, weight in enumerate(model.parameters()):
                weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(97 * step + index))
            set_learning_rates(optimizers, step, chosen)
            for optimizer in optimizers:
                optimizer.step()

    chosen = settings(optimizer="muon", muon_learning_rate=0.3)
    whole = RAR(SMALL)
    train(whole, make_optimizers(whole, chosen), range(4))
    first = RAR(SMALL)
    optimizers = make_optimizers(first, chosen)
    train(first, optimizers, range(2))
    second = RAR(SMALL, seed=5)
    second.load_state_dict(first.state_dict())
    resumed = make_optimizers(second, chosen)
    for optimizer, old in zip(resumed, optimizers, strict=True):
        optimizer.load_state_dict(old.state_dict())
    train(second, resumed, range(2, 4))
    assert all(torch.equal(one, second.state_dict()[name]) for name, one in whole.state_dict().items())


def test_muon_is_refused_where_it_has_no_matrices():
    with pytest.raises(RecipeError, match=r"Sequential has not\. Set train\.optimizer = 'adamw'"):
        make_optimizers(nn.Sequential(nn.Linear(2, 2)), settings(optimizer="muon"))
