"""What training is said to take, against what torch counts and keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rarkit.attention.plain import Plain
from rarkit.models import PRESETS, RAR, RARConfig
from rarkit.models.rar.training_costs import forward_flops, step_flops, training_bytes
from rarkit.training.optimizer import make_optimizer

PARITY = Path(__file__).parents[1] / "data/parity"
SMALL = RARConfig(
    hidden_size=64,
    depth=3,
    num_heads=4,
    mlp_hidden_size=192,
    seq_len=36,
    codebook_size=50,
    num_classes=10,
    dropout=0.0,
    attention_dropout=0.0,
)
IMAGES = 3


def inputs(config: RARConfig):
    tokens_BL = torch.randint(config.codebook_size, (IMAGES, config.seq_len), generator=torch.Generator().manual_seed(0))
    return tokens_BL, torch.arange(IMAGES), torch.arange(config.seq_len).expand(IMAGES, -1)


def loss_of(logits_BLV, tokens_BL):
    return functional.cross_entropy(logits_BLV.flatten(0, 1).float(), tokens_BL.flatten())


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_of_the_released_files(preset):
    manifest = json.loads((PARITY / f"{preset}.manifest.json").read_text())
    count = sum(torch.Size(shape).numel() for shape in manifest["tensors"].values())
    assert PRESETS[preset].parameter_count() == count == manifest["parameters"]
    held = training_bytes(PRESETS[preset], micro_batch=1, precision="float32", checkpointing=False)
    assert held.weights == held.gradients == held.optimizer / 2 == 4 * count


def test_flops_are_those_that_torch_counts():
    model = RAR(SMALL, Plain().build()).train()
    tokens_BL, labels_B, orders_BL = inputs(SMALL)
    with FlopCounterMode(display=False) as forward:
        logits_BLV = model(tokens_BL, labels_B, orders_BL)
    with FlopCounterMode(display=False) as backward:
        loss_of(logits_BLV, tokens_BL).backward()
    assert forward.get_total_flops() == IMAGES * forward_flops(SMALL)
    assert forward.get_total_flops() + backward.get_total_flops() == step_flops(SMALL, IMAGES, checkpointing=False)


def test_checkpointing_computes_the_blocks_once_more():
    model = RAR(SMALL, Plain().build()).train()
    tokens_BL, labels_B, orders_BL = inputs(SMALL)
    with FlopCounterMode(display=False) as counted:
        loss_of(model(tokens_BL, labels_B, orders_BL, checkpointing=True), tokens_BL).backward()
    assert counted.get_total_flops() == step_flops(SMALL, IMAGES, checkpointing=True)


def test_what_persists_is_what_torch_allocates():
    model = RAR(SMALL).train()
    optimizer = make_optimizer(model, betas=(0.9, 0.96), weight_decay=0.03)
    tokens_BL, labels_B, orders_BL = inputs(SMALL)
    loss_of(model(tokens_BL, labels_B, orders_BL), tokens_BL).backward()
    optimizer.step()
    held = training_bytes(SMALL, micro_batch=IMAGES, precision="float32", checkpointing=False)
    assert held.weights == sum(weight.nbytes for weight in model.parameters())
    assert held.gradients == sum(weight.grad.nbytes for weight in model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert held.optimizer == sum(value.nbytes for value in states)
    assert held.persistent == held.weights + held.gradients + held.optimizer


def kept(config: RARConfig, low: bool, checkpointing: bool = False, attention=None) -> int:
    """Bytes of all that autograd keeps from the forward pass, weights left out, and autocast's copies of them."""
    model = RAR(config, attention).train()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {weight.shape for weight in model.parameters()} | {weight.shape[::-1] for weight in model.parameters()}
    found, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in weights and not (low and tensor.shape in shapes):
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens_BL, labels_B, orders_BL = inputs(config)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits_BLV = model(tokens_BL, labels_B, orders_BL, checkpointing=checkpointing)
        loss_of(logits_BLV, tokens_BL)
    return sum(found.values())


@pytest.mark.parametrize(("precision", "backend"), [("float32", "sdpa"), ("bfloat16", "sdpa"), ("float32", "plain")])
def test_activations_are_what_autograd_keeps(precision, backend):
    low = precision != "float32"
    held = training_bytes(
        SMALL, micro_batch=IMAGES, precision=precision, checkpointing=False, keeps_weights=backend == "plain"
    ).activations
    entries = IMAGES * (SMALL.seq_len + 1)
    # Beyond what autograd keeps: the logits themselves, and their gradients as the backward pass begins.
    held -= entries * SMALL.codebook_size * ((2 if low else 4) + 8)
    if low:
        # On CUDA autocast makes float32 copies of q and k to norm them, on the CPU it does not.
        held -= entries * SMALL.depth * 2 * 4 * SMALL.hidden_size
    attention, tolerance = (Plain().build(), 0.05) if backend == "plain" else (None, 0.02)
    assert held == pytest.approx(kept(SMALL, low, attention=attention), rel=tolerance)


def test_dropout_keeps_masks():
    with_dropout = SMALL.model_copy(update={"dropout": 0.1})
    plain, dropped = (
        training_bytes(config, micro_batch=IMAGES, precision="float32", checkpointing=False) for config in (SMALL, with_dropout)
    )
    entries = IMAGES * (SMALL.seq_len + 1)
    masks = entries * SMALL.depth * (2 * SMALL.hidden_size + SMALL.mlp_hidden_size)
    assert dropped.activations - plain.activations == masks
    # On the CPU a mask has the type of what it masks: 4 bytes for CUDA's one.
    assert kept(with_dropout, low=False) - kept(SMALL, low=False) == 4 * masks


def test_checkpointing_keeps_the_inputs_of_blocks():
    deep = SMALL.model_copy(update={"depth": 9})
    held = [
        training_bytes(config, micro_batch=IMAGES, precision="float32", checkpointing=True).activations for config in (SMALL, deep)
    ]
    measured = [kept(config, low=False, checkpointing=True) for config in (SMALL, deep)]
    assert held[1] - held[0] == measured[1] - measured[0] == 6 * IMAGES * (SMALL.seq_len + 1) * SMALL.hidden_size * 4
    assert held[1] < training_bytes(deep, micro_batch=IMAGES, precision="float32", checkpointing=False).activations / 3
