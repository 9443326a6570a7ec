"""The estimated costs of sampling, against the decoder's real tensors and what torch counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rarkit.attention.plain import Plain
from rarkit.models import RAR, RARConfig
from rarkit.models.rar import sampling_costs
from rarkit.models.rar.decoding import projections
from rarkit.models.rar.sampling_costs import WIDENED_BYTES, sampling_bytes, sampling_flops, sampling_traffic
from rarkit.runtime.machine import sums_bfloat16_apart
from rarkit.runtime.processors import is_x86
from rarkit.sampling import Constant, Interval, generate
from rarkit.sampling.precision import MODEL_DTYPES
from tests.models.measured import peak
from tests.models.rar.decoding.kernels import needs_kernels

SMALL = RARConfig(hidden_size=64, depth=3, num_heads=4, mlp_hidden_size=192, seq_len=63, codebook_size=50, num_classes=10)
SHORT = SMALL.model_copy(update={"seq_len": 15})
WIDE = RARConfig(hidden_size=256, depth=2, num_heads=4, mlp_hidden_size=256, seq_len=30, codebook_size=50, num_classes=1000)
TABLE_BYTES = 2**24
"""A limit for the tables that those of two entries keep within for WIDE, with all its classes in one batch."""
PREFIX = {"target_aware": False, "conditioning": "prefix"}


def tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors that an object holds, through attributes and containers, modules left out."""
    if id(value) in seen or isinstance(value, nn.Module):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item, seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item, seen)
    elif type(value).__module__.startswith("rarkit."):
        yield from tensors(vars(value), seen)


CASES = [
    (SMALL, [0, 1, 2, 3], True, "float32"),
    (SMALL, [0, 1, 2, 3], True, "bfloat16"),
    (SMALL, [0, 1, 2], False, "float32"),
    (WIDE, range(1000), True, "bfloat16"),
    (SMALL.model_copy(update=PREFIX), [0, 1, 2, 3], True, "float32"),
    (SMALL.model_copy(update=PREFIX), [0, 1, 2, 3], True, "bfloat16"),
]


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize(
    ("config", "labels", "guided", "dtype"), CASES, ids=["float32", "bfloat16", "unguided", "wide", "prefix", "prefix-bfloat16"]
)
@torch.inference_mode()
def test_cache_and_tables_are_what_the_decoder_holds(monkeypatch, config, labels, guided, dtype, compiled):
    monkeypatch.setattr(sampling_costs, "TABLE_BYTES", TABLE_BYTES)
    model = RAR(config).to(getattr(torch, dtype)).eval()
    labels_B, order_L = torch.tensor([*labels]), torch.arange(config.seq_len)
    decoder = model.prepare(compiled=compiled).decoder(labels_B, order_L, [2.0 if guided else 1.0] * config.seq_len)
    # One step fills the tables.
    decoder.logits(0, None)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors(decoder, set())}
    held = sum(size for place, size in sizes.items() if place not in weights)
    costs = sampling_bytes(config, batch=len(labels_B), guided=guided, dtype=dtype, on_cpu=True, compiled=compiled)
    # PyTorch's own layouts of the projections are not tensors that the decoder holds.
    assert costs.kv_cache + costs.modulations + (costs.laid_out if compiled else 0) == pytest.approx(held, rel=0.03)
    assert costs.weights == sum(weight.nbytes for weight in model.parameters())
    assert costs.modulations <= TABLE_BYTES


PEAKS = [
    (SMALL, [0, 1, 2, 3], True, "float32"),
    (SMALL, [0, 1, 2], False, "bfloat16"),
    (SMALL, [0, 1, 2, 3], True, "int8"),
    (WIDE, range(64), True, "float32"),
    (WIDE, range(64), True, "bfloat16"),
    (SMALL.model_copy(update=PREFIX), [0, 1, 2, 3], True, "float32"),
    (WIDE.model_copy(update=PREFIX), range(64), True, "float32"),
    (WIDE.model_copy(update=PREFIX), range(64), False, "bfloat16"),
]
PEAK_IDS = ["small", "unguided", "int8", "wide", "wide-bfloat16", "prefix", "prefix-wide", "prefix-bfloat16"]


@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize(("config", "labels", "guided", "dtype"), PEAKS, ids=PEAK_IDS)
@torch.inference_mode()
def test_the_peak_is_what_torch_allocates(config, labels, guided, dtype, compiled):
    """From a model that is laid out to a batch that is done, by the allocator's own account."""
    model = RAR(config).to(getattr(torch, MODEL_DTYPES[dtype])).eval()
    ready = model.prepare(int8=dtype == "int8", compiled=compiled)
    guidance = Constant(scale=2.0) if guided else Constant()
    measured = peak(lambda: generate(ready, [*labels], order=torch.arange(config.seq_len), guidance=guidance))
    costs = sampling_bytes(
        config,
        batch=len(labels),
        guided=guided,
        dtype=dtype,
        on_cpu=True,
        compiled=compiled,
        widens_bfloat16=projections.lacks_bfloat16(torch.device("cpu")),
        sums_apart=sums_bfloat16_apart(),
    )
    assert costs.total - costs.weights - costs.laid_out == pytest.approx(measured, rel=0.1)


@pytest.mark.skipif(not is_x86(torch.device("cpu")), reason="needs an x86 processor")
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("case", [name for name, (*_, dtype) in zip(PEAK_IDS, PEAKS, strict=True) if dtype != "float32"])
def test_the_peak_is_that_of_processors_without_bfloat16_too(monkeypatch, case, compiled):
    monkeypatch.setattr(projections, "lacks_bfloat16", is_x86)
    test_the_peak_is_what_torch_allocates(*PEAKS[PEAK_IDS.index(case)], compiled)


@pytest.mark.parametrize("config", [SHORT, SHORT.model_copy(update=PREFIX)], ids=["rar", "prefix"])
@pytest.mark.parametrize(
    ("guidance", "guided_steps"),
    [(Constant(), 0), (Constant(scale=3.0), SHORT.seq_len), (Interval(scale=3.0, end=5 / SHORT.seq_len), 5)],
    ids=["none", "all", "some"],
)
def test_flops_are_those_that_torch_counts(config, guidance, guided_steps):
    # In float64 the decoder's matrices are not laid out anew, and torch sees all products.
    model = RAR(config, Plain().build()).double().eval()
    labels = [0, 1, 2, 2, 5]
    with FlopCounterMode(display=False) as counted:
        generate(model, labels, order=torch.arange(SHORT.seq_len), guidance=guidance)
    flops = sampling_flops(config, batch=5, classes=4, guided_steps=guided_steps)
    assert flops == pytest.approx(counted.get_total_flops(), rel=0.02)


def test_traffic_is_weights_at_every_entry_and_the_filled_cache():
    """Against a sum over all entries, written out."""
    batch, guided_steps = 3, 20
    matrices = sum(weight.numel() for name, weight in RAR(SMALL).named_parameters() if weight.ndim == 2 and _met_by_every_row(name))
    plain = 0
    for entry in range(SMALL.seq_len + 1):
        rows = batch * (2 if entry <= guided_steps else 1)
        plain += matrices + rows * (entry + 1) * 2 * SMALL.depth * SMALL.hidden_size
    assert sampling_traffic(SMALL, batch=batch, guided_steps=guided_steps, dtype="bfloat16") == 2 * plain


def _met_by_every_row(name: str) -> bool:
    return name.endswith("weight") and "adaLN" not in name and "embed" not in name and "adaln" not in name


def test_a_cpu_widens_a_narrow_cache_a_few_rows_at_a_time():
    asked = {"batch": 200, "guided": True, "dtype": "float32"}
    step = sampling_bytes(SMALL, **asked).workspace
    # Keys and values of one block: 400 rows, 64 entries of 64 numbers.
    assert sampling_bytes(SMALL, **asked, float8_cache=True).workspace - step == 2 * 400 * 64 * 64 * 4 > WIDENED_BYTES
    assert sampling_bytes(SMALL, **asked, float8_cache=True, on_cpu=True).workspace - step == WIDENED_BYTES
    compiled = [sampling_bytes(SMALL, **asked, float8_cache=narrow, on_cpu=True, compiled=True) for narrow in (False, True)]
    assert compiled[0].workspace == compiled[1].workspace
