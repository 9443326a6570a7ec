"""What training is said to take, against what torch counts and keeps."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rarkit.attention.plain import Plain
from rarkit.models import PRESETS, RAR, RARConfig
from rarkit.models.rar.family import RARCosts
from rarkit.models.rar.layers import Block
from rarkit.models.rar.training_costs import forward_flops, step_flops, training_bytes
from tests.models.measured import kept, loss_of, training_batch
from tests.models.rar.small import PARITY

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
VARIANTS = [
    SMALL,
    SMALL.model_copy(update={"target_aware": False}),
    SMALL.model_copy(update={"conditioning": "prefix"}),
    SMALL.model_copy(update={"target_aware": False, "conditioning": "prefix"}),
]
each_variant = pytest.mark.parametrize("config", VARIANTS, ids=["rar", "one table", "prefix", "prefix, one table"])
IMAGES = 3


@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_of_the_released_files(preset):
    manifest = json.loads((PARITY / f"{preset}.manifest.json").read_text())
    count = sum(torch.Size(shape).numel() for shape in manifest["tensors"].values())
    assert PRESETS[preset].parameter_count() == count == manifest["parameters"]
    held = training_bytes(PRESETS[preset], micro_batch=1, precision="float32", checkpointing=False)
    assert held.weights == held.gradients == held.optimizer / 2 == 4 * count


@each_variant
def test_flops_are_those_that_torch_counts(config):
    model = RAR(config, Plain().build()).train()
    batch = training_batch(config, IMAGES)
    with FlopCounterMode(display=False) as forward:
        logits_BLV = model(*batch)
    with FlopCounterMode(display=False) as backward:
        loss_of(logits_BLV, batch[0]).backward()
    assert forward.get_total_flops() == forward_flops(config, IMAGES)
    assert forward.get_total_flops() + backward.get_total_flops() == step_flops(config, IMAGES, checkpointing=False)


@each_variant
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [1, 2, 5])
def test_checkpointing_computes_the_blocks_once_more(config, dropout, checkpointing):
    config = config.model_copy(update={"dropout": dropout})
    model = RAR(config, Plain().build()).train()
    batch = training_batch(config, IMAGES)
    with FlopCounterMode(display=False) as counted:
        loss_of(model(*batch, mask_seeds_B=batch[1], checkpointing=checkpointing), batch[0]).backward()
    assert counted.get_total_flops() == step_flops(config, IMAGES, checkpointing=checkpointing)


@each_variant
def test_what_persists_is_what_torch_allocates(config):
    model = RAR(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = training_batch(config, IMAGES)
    loss_of(model(*batch), batch[0]).backward()
    optimizer.step()
    held = training_bytes(config, micro_batch=IMAGES, precision="float32", checkpointing=False)
    assert held.weights == sum(weight.nbytes for weight in model.parameters())
    assert held.gradients == sum(weight.grad.nbytes for weight in model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert held.optimizer == sum(value.nbytes for value in states)
    assert held.persistent == held.weights + held.gradients + held.optimizer


@each_variant
@pytest.mark.parametrize(("precision", "backend"), [("float32", "sdpa"), ("bfloat16", "sdpa"), ("float32", "plain")])
def test_activations_are_what_autograd_keeps(config, precision, backend, monkeypatch):
    monkeypatch.setattr(Block, "steps_on_cpu", lambda *_: False)
    low = precision != "float32"
    held = training_bytes(
        config, micro_batch=IMAGES, precision=precision, checkpointing=False, keeps_weights=backend == "plain"
    ).activations
    entries = IMAGES * (config.seq_len + 1)
    # Beyond what autograd keeps: the logits themselves, and their gradients as the backward pass begins.
    held -= entries * config.codebook_size * ((2 if low else 4) + 8)
    if low:
        # On CUDA autocast makes float32 copies of q and k to norm them, on the CPU it does not.
        held -= entries * config.depth * 2 * 4 * config.hidden_size
    attention, tolerance = (Plain().build(), 0.05) if backend == "plain" else (None, 0.02)
    assert held == pytest.approx(kept(RAR(config, attention).train(), IMAGES, low=low), rel=tolerance)


@each_variant
def test_dropout_keeps_masks(config, monkeypatch):
    monkeypatch.setattr(Block, "steps_on_cpu", lambda *_: False)
    with_dropout = config.model_copy(update={"dropout": 0.1})
    plain, dropped = (
        training_bytes(each, micro_batch=IMAGES, precision="float32", checkpointing=False) for each in (config, with_dropout)
    )
    entries = IMAGES * (config.seq_len + 1)
    masks = entries * config.depth * (2 * config.hidden_size + config.mlp_hidden_size)
    assert dropped.activations - plain.activations == masks
    measured = [kept(RAR(each).train(), IMAGES) for each in (config, with_dropout)]
    assert measured[1] - measured[0] == masks


@each_variant
def test_checkpointing_keeps_the_inputs_of_blocks(config):
    deep = config.model_copy(update={"depth": 9})
    held = [
        training_bytes(each, micro_batch=IMAGES, precision="float32", checkpointing=True).activations for each in (config, deep)
    ]
    measured = [kept(RAR(each).train(), IMAGES, checkpointing=True) for each in (config, deep)]
    assert held[1] - held[0] == measured[1] - measured[0] == 6 * IMAGES * (config.seq_len + 1) * config.hidden_size * 4
    assert held[1] < training_bytes(deep, micro_batch=IMAGES, precision="float32", checkpointing=False).activations / 3


@each_variant
def test_checkpointing_of_every_second_block_keeps_the_others(config, monkeypatch):
    """Of 3 and of 9 blocks: 3 more inputs, and 3 more blocks with all that they save."""
    monkeypatch.setattr(Block, "steps_on_cpu", lambda *_: False)
    deep = config.model_copy(update={"depth": 9})
    held = [training_bytes(each, micro_batch=IMAGES, precision="float32", checkpointing=2).activations for each in (config, deep)]
    measured = [kept(RAR(each).train(), IMAGES, checkpointing=2) for each in (config, deep)]
    assert held[1] - held[0] == pytest.approx(measured[1] - measured[0], rel=0.02)


@each_variant
def test_blocks_are_those_of_the_model(config):
    model = RAR(config)
    count, size = RARCosts(config).blocks()
    assert count == len(model.repeated)
    assert {sum(weight.numel() for weight in block.parameters()) for block in model.repeated} == {size}
