"""The model against the released implementation's numbers, and against the mathematics of what it claims to be."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from rarkit.attention.plain import Plain
from rarkit.models import PRESETS, RAR, RARConfig
from tests.models.rar.small import PARITY, TINY, lively, parity


def _order(model: RAR, seed: int, batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(model.config.seq_len, generator=generator) for _ in range(batch)])


def _batch(model: RAR, seed: int, batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    tokens_BL = torch.randint(config.codebook_size, (batch, config.seq_len), generator=generator)
    labels_B = torch.randint(config.num_classes, (batch,), generator=generator)
    return tokens_BL, labels_B, _order(model, seed, batch)


@pytest.mark.parametrize("way", ["permuted", "raster"])
@pytest.mark.parametrize("attention", [None, Plain().build()])
def test_teacher_forcing_parity(way, attention):
    small = parity()
    if attention is not None:
        small.model.attention = attention
    tokens_BL, dropped_B = small.tensors["inputs/tokens"], small.tensors["inputs/label_dropped"]
    orders_BL = small.tensors["inputs/orders"] if way == "permuted" else torch.arange(tokens_BL.shape[1])
    logits_BLV = small.model(tokens_BL, small.tensors["inputs/labels"], orders_BL, dropped_B=dropped_B)
    targets_BL = tokens_BL.gather(1, orders_BL.expand_as(tokens_BL))
    loss = functional.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten())
    accuracy = (logits_BLV.argmax(-1) == targets_BL).float().mean()
    expect = {key: small.tensors[f"expect/{way}/{key}"] for key in ("logits", "targets", "loss", "accuracy")}
    assert torch.equal(targets_BL, expect["targets"])
    torch.testing.assert_close(logits_BLV, expect["logits"], atol=2e-5, rtol=0)
    torch.testing.assert_close(loss, expect["loss"], atol=2e-5, rtol=0)
    assert torch.equal(accuracy, expect["accuracy"])


@pytest.mark.parametrize("checkpointing", [0, 1, 2])
def test_gradient_parity(checkpointing):
    small = parity()
    tokens_BL, orders_BL = small.tensors["inputs/tokens"], small.tensors["inputs/orders"]
    logits_BLV = small.model(
        tokens_BL,
        small.tensors["inputs/labels"],
        orders_BL,
        dropped_B=small.tensors["inputs/label_dropped"],
        checkpointing=checkpointing,
    )
    functional.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.gather(1, orders_BL).flatten()).backward()
    expected = {
        name.removeprefix("expect/permuted/grad/"): tensor
        for name, tensor in small.tensors.items()
        if name.startswith("expect/permuted/grad/")
    }
    assert expected.keys() == dict(small.model.named_parameters()).keys()
    for name, weight in small.model.named_parameters():
        assert weight.grad is not None, name
        # A bias on all keys alike moves all scores alike: its true gradient is 0 and the expected one is rounding.
        tolerance = 1e-8 if name.endswith("k_norm.bias") else 1e-4 * expected[name].abs().max().item()
        torch.testing.assert_close(weight.grad, expected[name], atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_have_the_released_tensors(preset):
    manifest = json.loads((PARITY / f"{preset}.manifest.json").read_text())
    with torch.device("meta"):
        model = RAR(PRESETS[preset])
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(shapes.items()) == list(manifest["tensors"].items())
    assert PRESETS[preset].parameter_count() == manifest["parameters"]
    assert sum(weight.numel() for weight in model.parameters()) == manifest["parameters"]


@given(
    heads=st.integers(1, 3),
    head_size=st.integers(1, 6),
    depth=st.integers(1, 3),
    sizes=st.tuples(*[st.integers(1, 30)] * 4),
)
@settings(max_examples=25)
def test_parameter_count_is_what_the_model_holds(heads, head_size, depth, sizes):
    mlp_hidden_size, seq_len, codebook_size, num_classes = sizes
    config = RARConfig(
        hidden_size=heads * head_size,
        depth=depth,
        num_heads=heads,
        mlp_hidden_size=mlp_hidden_size,
        seq_len=seq_len,
        codebook_size=codebook_size,
        num_classes=num_classes,
    )
    with torch.device("meta"):
        model = RAR(config)
    assert config.parameter_count() == sum(weight.numel() for weight in model.parameters())


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValidationError, match="hidden_size 33 is not a multiple of num_heads 2"):
        RARConfig(**{**TINY.model_dump(), "hidden_size": 33})


@given(seed=st.integers(0, 2**16), step=st.integers(0, TINY.seq_len - 1))
@settings(max_examples=20)
def test_causality_along_the_order(seed, step):
    """Logits at a step do not see the token of that step or of a later one, and do see the one before."""
    model = lively()
    tokens_BL, labels_B, orders_BL = _batch(model, seed, 2)
    changed_BL = tokens_BL.clone()
    cells_B1 = orders_BL[:, step : step + 1]
    changed_BL.scatter_(1, cells_B1, (tokens_BL.gather(1, cells_B1) + 1) % model.config.codebook_size)
    with torch.no_grad():
        before, after = (model(tokens, labels_B, orders_BL) for tokens in (tokens_BL, changed_BL))
    torch.testing.assert_close(before[:, : step + 1], after[:, : step + 1], atol=1e-5, rtol=0)
    if step + 1 < model.config.seq_len:
        assert (before[:, step + 1] - after[:, step + 1]).abs().max() > 1e-3


@given(seed=st.integers(0, 2**16))
@settings(max_examples=15)
def test_orders_are_of_each_sample_and_labels_count(seed):
    model = lively()
    tokens_BL, labels_B, orders_BL = _batch(model, seed, 3)
    with torch.no_grad():
        together = model(tokens_BL, labels_B, orders_BL)
        apart = torch.cat([model(tokens_BL[[b]], labels_B[[b]], orders_BL[b]) for b in range(3)])
        others = model(tokens_BL, (labels_B + 1) % model.config.num_classes, orders_BL)
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=0)
    assert (together - others).abs().amax((1, 2)).min() > 1e-3


def test_dropped_class_hides_the_class():
    model = lively()
    tokens_BL, labels_B, orders_BL = _batch(model, 3, 4)
    dropped_B = torch.tensor([True, False, True, False])
    with torch.no_grad():
        one = model(tokens_BL, labels_B, orders_BL, dropped_B=dropped_B)
        other = model(tokens_BL, (labels_B + 1) % model.config.num_classes, orders_BL, dropped_B=dropped_B)
    assert torch.equal(one[dropped_B], other[dropped_B])
    assert (one[~dropped_B] - other[~dropped_B]).abs().max() > 1e-3


def test_initial_weights_follow_the_seed_and_the_released_rule():
    state = torch.random.get_rng_state()
    first, same, other = (RAR(TINY, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in first.items():
        assert torch.equal(tensor, same[name])
        if "adaLN_modulation" in name or name.endswith("bias") or name == "cls_token":
            assert not tensor.any(), name
        elif "norm" in name:
            assert (tensor == 1).all(), name
        else:
            assert not torch.equal(tensor, other[name]), name
            assert tensor.std().item() == pytest.approx(0.02, rel=0.2), name
            assert abs(tensor.mean().item()) < 0.02 * 5 / tensor.numel() ** 0.5, name


def test_dropout_acts_in_training_alone():
    model = lively()
    tokens_BL, labels_B, orders_BL = _batch(model, 1, 2)
    with torch.no_grad():
        assert torch.equal(model(tokens_BL, labels_B, orders_BL), model(tokens_BL, labels_B, orders_BL))
        model.train()
        first, again, other = (model(tokens_BL, labels_B, orders_BL, mask_seeds_B=torch.arange(2) + seed) for seed in (0, 0, 9))
        assert torch.equal(first, again)
        assert not torch.allclose(first, other)


@pytest.mark.parametrize("what", ["dropout", "attention_dropout"])
def test_each_dropout_alone_acts(what):
    none = {**TINY.model_dump(), "dropout": 0.0, "attention_dropout": 0.0}
    tokens_BL, labels_B, orders_BL = _batch(lively(), 1, 2)
    still, shaken = (lively(RARConfig(**(none | extra))).train() for extra in ({}, {what: 0.5}))
    with torch.no_grad():
        expected = lively()(tokens_BL, labels_B, orders_BL)
        assert torch.equal(still(tokens_BL, labels_B, orders_BL), expected)
        dropped = shaken(tokens_BL, labels_B, orders_BL, mask_seeds_B=torch.arange(2))
        assert not torch.allclose(dropped, expected, atol=1e-3)


def test_checkpointing_repeats_the_same_dropout():
    gradients = []
    for checkpointing in (0, 1, 2):
        model = lively().train()
        torch.manual_seed(5)
        logits_BLV = model(*_batch(model, 2, 3), mask_seeds_B=torch.arange(3), checkpointing=checkpointing)
        logits_BLV.square().mean().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, gradient in gradients[0].items():
        for again in gradients[1:]:
            torch.testing.assert_close(again[name], gradient, msg=lambda message, name=name: f"{name}: {message}")


def test_autocast_stays_close_to_float32():
    model = lively(scale=0.05)
    batch = _batch(model, 2, 3)
    with torch.no_grad():
        exact = model(*batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(*batch)
    assert rough.dtype == torch.bfloat16
    assert (exact - rough).abs().max() < 0.02 * exact.abs().max()


def test_config_and_presets_load_no_torch():
    code = "import sys; from rarkit.models import PRESETS; PRESETS['rar_b'].parameter_count(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
