"""What training and sampling are said to take, against what torch counts, keeps and allocates."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rarkit.attention.plain import Plain
from rarkit.models import LlamaAR, LlamaARConfig
from rarkit.models.llama_ar.costs import LlamaARCosts
from rarkit.sampling import Constant, Interval, generate
from tests.models.measured import kept, loss_of, peak, training_batch

SMALL = LlamaARConfig(
    hidden_size=64,
    depth=3,
    num_heads=4,
    mlp_hidden_size=192,
    grid=(4, 9),
    seq_len=36,
    codebook_size=50,
    num_classes=10,
    dropout=0.0,
    attention_dropout=0.0,
)
SHORT = SMALL.model_copy(update={"grid": (3, 4), "seq_len": 12})
WIDE = SHORT.model_copy(update={"hidden_size": 256, "mlp_hidden_size": 768, "num_classes": 1000})
IMAGES = 3
ENTRIES = IMAGES * SMALL.seq_len


def held(config=SMALL, *, precision="float32", checkpointing=False, keeps_weights=False):
    return LlamaARCosts(config).training_bytes(
        micro_batch=IMAGES, precision=precision, checkpointing=checkpointing, keeps_weights=keeps_weights
    )


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("checkpointing", [0, 1, 2])
def test_training_flops_are_those_that_torch_counts(checkpointing, dropout):
    config = SMALL.model_copy(update={"dropout": dropout})
    model = LlamaAR(config, Plain().build()).train()
    batch = training_batch(config, IMAGES)
    with FlopCounterMode(display=False) as counted:
        loss_of(model(*batch, mask_seeds_B=batch[1], checkpointing=checkpointing), batch[0]).backward()
    assert counted.get_total_flops() == LlamaARCosts(config).step_flops(IMAGES, checkpointing=checkpointing)


def test_what_persists_is_what_torch_allocates():
    model = LlamaAR(SMALL).train()
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = training_batch(SMALL, IMAGES)
    loss_of(model(*batch), batch[0]).backward()
    optimizer.step()
    assert held().weights == sum(weight.nbytes for weight in model.parameters())
    assert held().gradients == sum(weight.grad.nbytes for weight in model.parameters())
    states = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    assert held().optimizer == sum(value.nbytes for value in states)
    assert held().persistent == held().weights + held().gradients + held().optimizer
    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    assert held(precision="bfloat16").casts == 2 * sum(weight.numel() for weight in matrices)


@pytest.mark.parametrize(("precision", "backend"), [("float32", "sdpa"), ("bfloat16", "sdpa"), ("float32", "plain")])
def test_activations_are_what_autograd_keeps(precision, backend):
    low = precision != "float32"
    said = held(precision=precision, keeps_weights=backend == "plain").activations
    # Beyond what autograd keeps: the logits themselves, and their gradients as the backward pass begins.
    said -= ENTRIES * SMALL.codebook_size * ((2 if low else 4) + 8)
    # On CUDA a norm is one kernel; on the CPU it is made of several, and keeps what the weight multiplies.
    said += ENTRIES * (2 * SMALL.depth + 1) * 4 * SMALL.hidden_size
    attention, tolerance = (Plain().build(), 0.05) if backend == "plain" else (None, 0.001)
    assert said == pytest.approx(kept(LlamaAR(SMALL, attention).train(), IMAGES, low=low), rel=tolerance)


def test_dropout_keeps_masks():
    with_dropout = SMALL.model_copy(update={"dropout": 0.1})
    masks = ENTRIES * SMALL.depth * 2 * SMALL.hidden_size
    assert held(with_dropout).activations - held().activations == masks
    measured = [kept(LlamaAR(config).train(), IMAGES) for config in (SMALL, with_dropout)]
    assert measured[1] - measured[0] == masks


def test_checkpointing_keeps_the_inputs_of_blocks():
    deep = SMALL.model_copy(update={"depth": 9})
    said = [held(config, checkpointing=True).activations for config in (SMALL, deep)]
    measured = [kept(LlamaAR(config).train(), IMAGES, checkpointing=True) for config in (SMALL, deep)]
    assert said[1] - said[0] == measured[1] - measured[0] == 6 * ENTRIES * SMALL.hidden_size * 4
    assert said[1] < held(deep).activations / 3


def test_checkpointing_of_every_second_block_keeps_the_others():
    deep = SMALL.model_copy(update={"depth": 9})
    said = [held(config, checkpointing=2).activations for config in (SMALL, deep)]
    measured = [kept(LlamaAR(config).train(), IMAGES, checkpointing=2) for config in (SMALL, deep)]
    # 3 more blocks with all that they save, two norms each: on the CPU a norm also keeps what the weight multiplies.
    assert measured[1] - measured[0] - (said[1] - said[0]) == 3 * 2 * ENTRIES * 4 * SMALL.hidden_size


def test_blocks_are_those_of_the_model():
    model = LlamaAR(SMALL)
    count, size = LlamaARCosts(SMALL).blocks()
    assert count == len(model.repeated)
    assert {sum(weight.numel() for weight in block.parameters()) for block in model.repeated} == {size}


PEAKS = [
    (SMALL, [0, 1, 2, 3], True, "float32"),
    (SMALL, [0, 1, 2], False, "float32"),
    (SMALL, [0, 1, 2, 3], True, "bfloat16"),
    (WIDE, range(64), True, "float32"),
    (WIDE, range(16), False, "bfloat16"),
]


@pytest.mark.parametrize(
    ("config", "labels", "guided", "dtype"), PEAKS, ids=["small", "unguided", "bfloat16", "wide", "wide-bfloat16"]
)
@torch.inference_mode()
def test_the_peak_of_sampling_is_what_torch_allocates(config, labels, guided, dtype):
    model = LlamaAR(config).to(getattr(torch, dtype)).eval()
    guidance = Constant(scale=2.0) if guided else Constant()
    measured = peak(lambda: generate(model.prepare(), [*labels], order=torch.arange(config.seq_len), guidance=guidance))
    said = LlamaARCosts(config).sampling_bytes(batch=len(labels), guided=guided, precision=dtype, kv_cache="same", on_cpu=True)
    assert said.weights == sum(weight.nbytes for weight in model.parameters())
    decoder = model.prepare().decoder(
        torch.tensor([*labels]), torch.arange(config.seq_len), [2.0 if guided else 1.0] * config.seq_len
    )
    assert said.kv_cache == decoder.kv.nbytes
    assert said.total - said.weights == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(("config", "labels", "guided"), [PEAKS[2][:3], PEAKS[4][:3]], ids=["bfloat16", "wide-bfloat16"])
def test_the_peak_is_that_of_processors_without_bfloat16_too(monkeypatch, config, labels, guided):
    monkeypatch.setattr("rarkit.runtime.machine.cpu_flags", lambda: frozenset({"sse2", "avx2"}))
    # Without oneDNN, PyTorch multiplies bfloat16 matrices in plain loops, as on these processors.
    with torch.backends.mkldnn.flags(enabled=False):
        test_the_peak_of_sampling_is_what_torch_allocates(config, labels, guided, "bfloat16")


@pytest.mark.parametrize(
    ("guidance", "guided_steps"),
    [(Constant(), 0), (Constant(scale=3.0), SHORT.seq_len), (Interval(scale=3.0, end=5 / 12), 5)],
    ids=["none", "all", "some"],
)
def test_sampling_flops_are_those_that_torch_counts(guidance, guided_steps):
    model = LlamaAR(SHORT, Plain().build()).eval()
    with FlopCounterMode(display=False) as counted:
        generate(model, [0, 1, 2, 2, 5], order=torch.arange(SHORT.seq_len), guidance=guidance)
    said = LlamaARCosts(SHORT).sampling_flops(batch=5, classes=4, guided_steps=guided_steps)
    assert said == counted.get_total_flops()


def test_traffic_is_weights_at_every_entry_and_the_filled_cache():
    """Against a sum over all entries, written out."""
    batch, guided_steps = 3, 20
    weights = LlamaAR(SMALL).named_parameters()
    matrices = sum(weight.numel() for name, weight in weights if weight.ndim == 2 and "embed" not in name)
    plain = 0
    for entry in range(SMALL.seq_len):
        rows = batch * (2 if entry < guided_steps else 1)
        plain += matrices + rows * (entry + 1) * 2 * SMALL.depth * SMALL.hidden_size
    assert LlamaARCosts(SMALL).sampling_traffic(batch=batch, guided_steps=guided_steps, precision="bfloat16") == 2 * plain
