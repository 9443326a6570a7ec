"""The training step of a block, once in one node on the CPU and once layer by layer; dropout by samples' seeds; modulations by
class."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.plain import Plain
from rarkit.models import RAR, RARConfig
from rarkit.models.rar import cpu_modulations
from rarkit.models.rar.layers import Block
from tests.models.rar.small import TINY, lively

LONG = RARConfig(hidden_size=32, depth=1, num_heads=2, mlp_hidden_size=48, seq_len=150, codebook_size=20, num_classes=5)


def _gradients(model, batch, seeds_B=None, **options):
    tokens_BL, labels_B, orders_BL = batch
    seeds_B = torch.arange(len(tokens_BL)) if seeds_B is None else seeds_B
    model.zero_grad()
    logits_BLV = model(tokens_BL, labels_B, orders_BL, mask_seeds_B=seeds_B, **options)
    logits_BLV.square().mean().backward()
    return {"logits": logits_BLV.detach()} | {name: weight.grad for name, weight in model.named_parameters()}


def _batch(config, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(config.codebook_size, (batch, config.seq_len), generator=generator)
    labels_B = torch.randint(config.num_classes, (batch,), generator=generator)
    return tokens_BL, labels_B, torch.stack([torch.randperm(config.seq_len, generator=generator) for _ in range(batch)])


def _assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # A bias on all keys alike moves all scores alike: its true gradient is 0.
        largest = 1.0 if name.endswith("k_norm.bias") else gradient.abs().max().item()
        torch.testing.assert_close(found[name], gradient, atol=tolerance * largest, rtol=0, msg=lambda text, name=name: name + text)


def _model(config, dropouts, dtype=torch.float64):
    return lively(config.model_copy(update=dict(zip(("dropout", "attention_dropout"), dropouts, strict=True)))).to(dtype).train()


@pytest.fixture
def steps(monkeypatch):
    """How often blocks took their step on the CPU in one node."""
    taken, decide = [], Block.steps_on_cpu
    monkeypatch.setattr(Block, "steps_on_cpu", lambda *given: taken.append(decide(*given)) or taken[-1])
    return taken


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("dropouts", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.3, 0.3)])
@pytest.mark.parametrize(("config", "batch"), [(TINY, 2), (TINY, 5), (TINY, 9), (LONG, 3)])
def test_one_node_against_layer_by_layer_in_float64(config, batch, dropouts, one_by_one, steps, monkeypatch):
    if one_by_one:
        monkeypatch.setattr(cpu_modulations, "AT_ONCE", 1)
    model, given_to_it = _model(config, dropouts), _batch(config, batch)
    found = _gradients(model, given_to_it, dropped_B=torch.arange(batch) % 3 == 0)
    assert steps == [True] * config.depth
    monkeypatch.setattr(Block, "steps_on_cpu", lambda *_: False)
    _assert_same(found, _gradients(model, given_to_it, dropped_B=torch.arange(batch) % 3 == 0), 1e-11)


def test_checkpointing_and_other_attention_give_the_same(steps):
    model, batch = _model(TINY, (0.3, 0.3)), _batch(TINY, 4)
    expected = _gradients(model, batch)
    _assert_same(_gradients(model, batch, checkpointing=True), expected, 1e-11)
    assert all(steps)
    model.attention = Plain().build()
    _assert_same(_gradients(model, batch), expected, 1e-11)
    assert not any(steps[-TINY.depth :])


def test_under_autocast_and_compiled_masks_are_the_same():
    model, batch = _model(TINY, (0.3, 0.3), torch.float32), _batch(TINY, 4)
    expected = _gradients(model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = _gradients(model, batch)
    # With other masks a third of all values would differ by their whole size.
    assert (rough["logits"] - expected["logits"]).abs().mean() < 0.05 * expected["logits"].abs().mean()
    torch.compiler.reset()
    for block in model.layers:
        block.compile(backend="eager", fullgraph=True)
    _assert_same(_gradients(model, batch), expected, 1e-4)


def test_each_block_is_compiled_once():
    config = TINY.model_copy(update={"depth": 4, "dropout": 0.0, "attention_dropout": 0.0})
    model, batch = lively(config).train(), _batch(config, 3)
    torch.compiler.reset()
    graphs = []
    for block in model.layers:
        block.compile(backend=lambda graph, _: graphs.append(graph) or graph.forward, fullgraph=True)
    _gradients(model, batch)
    _gradients(model, _batch(config, 3, seed=1))
    assert len(graphs) == config.depth


@given(batch=st.integers(2, 6), split=st.integers(1, 5), seed=st.integers(0, 2**40))
@settings(max_examples=10)
def test_masks_do_not_depend_on_the_batch(batch, split, seed):
    model = _model(TINY, (0.3, 0.3))
    tokens_BL, labels_B, orders_BL = _batch(TINY, batch)
    seeds_B = torch.arange(batch) + seed
    with torch.no_grad():
        whole = model(tokens_BL, labels_B, orders_BL, mask_seeds_B=seeds_B)
        parts = [
            model(tokens_BL[part], labels_B[part], orders_BL[part], mask_seeds_B=seeds_B[part])
            for part in (slice(split), slice(split, None))
            if len(tokens_BL[part])
        ]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-11, rtol=0)


def test_a_layer_of_ones_own_is_called(steps):
    """Such as an adapter in place of a projection, or a hook."""
    model, batch = _model(TINY, (0.0, 0.0)), _batch(TINY, 3)
    calls = []
    model.layers[0].attn.qkv.register_forward_hook(lambda *_: calls.append(1))
    model.layers[1].mlp.fc1 = torch.nn.Sequential(model.layers[1].mlp.fc1)
    _gradients(model, batch)
    assert calls == [1]
    assert steps == [False, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_trained_layer_by_layer(dtype, steps):
    """What a dropped unit is fed in one node is beyond the range of float16."""
    found = _gradients(_model(TINY, (0.3, 0.3), dtype), _batch(TINY, 3))
    assert steps == [False] * TINY.depth
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_frozen_weights_have_no_gradient():
    model, batch = _model(TINY, (0.0, 0.0)), _batch(TINY, 3)
    expected = _gradients(model, batch)
    model.layers[0].mlp.fc1.weight.requires_grad_(False)
    found = _gradients(model, batch)
    assert found.pop("blocks.0.mlp.fc1.weight") is None
    _assert_same(found, {name: value for name, value in expected.items() if name in found}, 1e-11)


@pytest.mark.parametrize("classes", [1, 5, 40])
def test_modulations_once_for_each_class(classes):
    """A batch gives what its samples give alone, whether its classes are fewer than the samples, the same or all different."""
    config = TINY.model_copy(update={"num_classes": classes, "dropout": 0.0, "attention_dropout": 0.0})
    model, (tokens_BL, _, orders_BL) = lively(config).double(), _batch(config, 8)
    labels_B, dropped_B = torch.arange(8) % classes, torch.arange(8) == 3
    with torch.no_grad():
        together = model(tokens_BL, labels_B, orders_BL, dropped_B=dropped_B)
        apart = [model(tokens_BL[[b]], labels_B[[b]], orders_BL[[b]], dropped_B=dropped_B[[b]]) for b in range(8)]
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-11, rtol=0)


def test_prefix_conditioning_trains_with_the_same_masks_in_any_batch():
    config = TINY.model_copy(update={"conditioning": "prefix", "dropout": 0.3})
    model, batch = RAR(config).double().train(), _batch(config, 3)
    with torch.no_grad():
        whole = model(*batch, mask_seeds_B=torch.arange(3))
        last = model(*(part[2:] for part in batch), mask_seeds_B=torch.tensor([2]))
    torch.testing.assert_close(last, whole[2:], atol=1e-11, rtol=0)
