"""A block's training step with compiled kernels, against the block layer by layer in float64."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.models import RARConfig
from rarkit.models.rar import layers, native_block, native_training
from rarkit.models.rar.layers import Block
from tests.models.rar.decoding.kernels import needs_kernels
from tests.models.rar.small import TINY, lively

pytestmark = needs_kernels


def _batch(config, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    orders_BL = torch.stack([torch.randperm(config.seq_len, generator=generator) for _ in range(batch)])
    tokens_BL = torch.randint(config.codebook_size, (batch, config.seq_len), generator=generator)
    return tokens_BL, torch.randint(config.num_classes, (batch,), generator=generator), orders_BL


def _gradients(model, batch):
    seeds_B = torch.arange(len(batch[0])) + 5
    model.zero_grad()
    logits_BLV = model(*batch, mask_seeds_B=seeds_B, dropped_B=seeds_B % 3 == 0)
    logits_BLV.square().mean().backward()
    return {"logits": logits_BLV.detach()} | {name: weight.grad for name, weight in model.named_parameters()}


def _errors(found, expected):
    """The largest error of each gradient, relative to the largest value of it."""
    assert found.keys() == expected.keys()
    most = max(gradient.abs().max().item() for gradient in expected.values())
    # A gradient far smaller than others is what is left of large terms: float32 has only some of its digits.
    return {
        name: (found[name].double() - gradient.double()).abs().max().item() / max(gradient.abs().max().item(), most / 100)
        for name, gradient in expected.items()
    }


def _assert_same(found, expected, allowed=1e-5):
    errors = _errors(found, expected)
    assert all(error <= allowed for error in errors.values()), errors


@pytest.fixture
def steps(monkeypatch):
    """How often the kernels took a block's step."""
    taken, apply = [], native_block.NativeStep.apply
    monkeypatch.setattr(native_block.NativeStep, "apply", lambda *given: taken.append(1) or apply(*given))
    return taken


def _layer_by_layer(model, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "steps_on_cpu", lambda *_: False)
        return _gradients(model, batch)


@given(
    heads=st.integers(1, 3),
    head_width=st.sampled_from([3, 8, 12, 53]),
    hidden=st.integers(1, 40),
    length=st.sampled_from([1, 6, 7, 8, 15, 16, 30]),
    classes=st.sampled_from([1, 3, 20]),
    dropouts=st.tuples(st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.3])),
    batch=st.integers(1, 7),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=30)
def test_gradients_are_those_of_float64(heads, head_width, hidden, length, classes, dropouts, batch, seed):
    config = RARConfig(
        hidden_size=heads * head_width, depth=1, num_heads=heads, mlp_hidden_size=hidden, seq_len=length, codebook_size=9,
        num_classes=classes, dropout=dropouts[0], attention_dropout=dropouts[1],
    )  # fmt: skip
    model, given_to_it = lively(config).train(), _batch(config, batch, seed)
    found, plain = _gradients(model, given_to_it), _layer_by_layer(model, given_to_it)
    expected = _layer_by_layer(model.double(), given_to_it)
    # Norms of three numbers that are nearly equal leave few digits of float32 to anybody.
    _assert_same(found, expected, allowed=max(1e-5, 3 * max(_errors(plain, expected).values())))


def test_the_kernels_take_the_step_of_short_sequences_in_float32(steps):
    config = TINY.model_copy(update={"dropout": 0.3, "attention_dropout": 0.3})
    _gradients(lively(config).train(), _batch(config, 3))
    assert len(steps) == config.depth
    _gradients(lively(config).double().train(), _batch(config, 3))
    long = config.model_copy(update={"seq_len": native_block.LONGEST, "depth": 1})
    _gradients(lively(long).train(), _batch(long, 1))
    assert len(steps) == config.depth


def test_bits_do_not_depend_on_threads():
    kernels = native_training.training_kernels()
    x_BSD, row_B, keys_B = torch.randn(5, 13, 24), torch.tensor([0, 2, 0, 1, 2]), torch.arange(5)
    table_PUSD, norm = torch.randn(6, 3, 13, 24), native_training.Norm(torch.randn(24), torch.randn(24), 1e-6)
    masks, shape = native_training.Masks(keys_B, 0.3), native_training.Shape(5, 13, 2, 4)
    norms = torch.randn(2, 4), torch.randn(2, 4), 1e-6

    def results():
        modulated_BSD, statistics_R2 = kernels.modulate(x_BSD, norm, table_PUSD, row_B, 0)
        gradients_PUSD = torch.zeros_like(table_PUSD)
        backwards = kernels.modulate_backwards(
            modulated_BSD, x_BSD, x_BSD, statistics_R2, norm, table_PUSD, row_B, 0, gradients_PUSD
        )
        rows_RD = x_BSD.flatten(0, 1)
        gated_BSD = kernels.gate(x_BSD, rows_RD, table_PUSD[2], row_B, masks)
        gate_gradients = kernels.gate_backwards(gated_BSD, rows_RD, table_PUSD[2], row_B, masks, gradients_PUSD[2])
        # Both change what they are given.
        slopes_RH, qkv_RM = rows_RD.clone(), rows_RD.clone()
        active_RH = kernels.activate(slopes_RH, 5, masks)
        bias_H = kernels.activate_backwards(active_RH, slopes_RH, 5)
        read_RD, *kept = kernels.attend(qkv_RM, norms, shape, masks)
        attention_gradients = kernels.attend_backwards(read_RD, qkv_RM, norms, shape, masks, *kept)
        found = modulated_BSD, statistics_R2, *backwards, gradients_PUSD, gated_BSD, *gate_gradients, active_RH, bias_H
        return *found, slopes_RH, qkv_RM, read_RD, *attention_gradients

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = results()
        torch.set_num_threads(3)
        assert all(torch.equal(one, other) for one, other in zip(alone, results(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_without_kernels_pytorch_trains_with_a_warning(steps, monkeypatch):
    def none():
        raise CapabilityError("there is no compiler")

    model, batch = lively(TINY).train(), _batch(TINY, 3)
    expected = _gradients(model, batch)
    taken = len(steps)
    monkeypatch.setattr(native_training, "compiled_kernels", none)
    monkeypatch.setattr(layers, "training_kernels", functools.cache(native_training.training_kernels.__wrapped__))
    with pytest.warns(RarkitWarning, match="training with PyTorch's own kernels.*there is no compiler") as warned:
        found = _gradients(model, batch)
    assert len(warned) == 1
    assert len(steps) == taken
    _assert_same(found, expected)
