"""The compiled kernels against PyTorch's own operations in float64.

Shape letters: R rows, I inputs, O outputs, U rows of a table; N heads, K head width, S entries of the cache.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rarkit.errors import CapabilityError
from rarkit.models.rar.decoding.native_kernels import CACHES, WEIGHTS, CompiledLinear, Modulation, Residual, compiled_kernels
from rarkit.models.rar.decoding.projections import quantised
from rarkit.models.rar.decoding.steps import narrowed
from rarkit.sampling import generate
from tests.models.rar.decoding.kernels import needs_kernels
from tests.models.rar.small import TINY, lively

EPS = 1e-6
pytestmark = needs_kernels


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(
    rows=st.integers(1, 210),
    inputs=st.integers(1, 600),
    outputs=st.integers(1, 100),
    dtype=st.sampled_from(WEIGHTS),
    gelu=st.booleans(),
    modulated=st.booleans(),
    added=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_a_layer_is_what_pytorch_makes_of_it(rows, inputs, outputs, dtype, gelu, modulated, added, seed):
    chance = generator(seed)
    weight_OI, bias_O = torch.randn(outputs, inputs, generator=chance), torch.randn(outputs, generator=chance)
    scale_O = None
    if dtype == torch.int8:
        weight_OI, scale_O = quantised(weight_OI)
    weight_OI = weight_OI.to(dtype)
    x_RI, row_R = torch.randn(rows, inputs, generator=chance), torch.randint(3, (rows,), generator=chance)
    table_UM = torch.randn(3, 2 * inputs + outputs + 5, generator=chance)
    shift_UI, scale_UI, gate_UO, _ = table_UM.split([inputs, inputs, outputs, 5], dim=1)
    to_RO = torch.randn(rows, outputs, generator=chance)

    modulation = Modulation(shift_UI, scale_UI, row_R, EPS) if modulated else None
    residual = Residual(to_RO, gate_UO, row_R) if added else None
    output_RO = CompiledLinear(compiled_kernels(), weight_OI, scale_O, bias_O, gelu=gelu)(x_RI, modulation, residual)

    wide_RI, wide_OI = x_RI.double(), weight_OI.double() * (1 if scale_O is None else scale_O[:, None].double())
    if modulated:
        wide_RI = shift_UI[row_R] + scale_UI[row_R] * functional.layer_norm(wide_RI, (inputs,), eps=EPS)
    expected_RO = wide_RI @ wide_OI.T + bias_O
    # Float32's own error in sums of that many products; a norm of few numbers that are nearly alike loses more.
    bound_RO = (wide_RI.abs() @ wide_OI.abs().T + bias_O.abs()) * (2**-17 if modulated else 2**-20) + 1e-6
    expected_RO = functional.gelu(expected_RO) if gelu else expected_RO
    if added:
        expected_RO, bound_RO = to_RO + gate_UO[row_R] * expected_RO, bound_RO * gate_UO[row_R].abs() + 1e-6
    assert output_RO.shape == expected_RO.shape
    assert ((output_RO - expected_RO).abs() <= 1.2 * bound_RO).all()


@given(
    rows=st.integers(1, 5),
    spare=st.integers(0, 2),
    heads=st.integers(1, 4),
    width=st.integers(1, 100),
    entries=st.integers(1, 70),
    dtype=st.sampled_from(CACHES),
    data=st.data(),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_attention_normalises_keeps_and_reads_what_is_filled(rows, spare, heads, width, entries, dtype, data, seed):
    entry, chance = data.draw(st.integers(0, entries - 1)), generator(seed)
    qkv_R3NK = torch.randn(rows, 3, heads, width, generator=chance) * 3
    weight_2K, bias_2K = torch.randn(2, width, generator=chance), torch.randn(2, width, generator=chance)
    kv_2RNSK = narrowed(torch.randn(2, rows + spare, heads, entries, width, generator=chance), dtype)
    # What is not filled must not be read.
    kv_2RNSK[:, :, :, entry:] = torch.tensor(float("nan")).to(dtype)
    before = kv_2RNSK.clone()

    read_RNK = compiled_kernels().attend(qkv_R3NK, (weight_2K, bias_2K, EPS), kv_2RNSK, entry)

    q_RNK, k_RNK, _ = qkv_R3NK.double().unbind(1)
    q_RNK, k_RNK = (
        functional.layer_norm(new, (width,), weight.double(), bias.double(), EPS)
        for new, weight, bias in zip((q_RNK, k_RNK), weight_2K, bias_2K, strict=True)
    )
    written_2RNK = kv_2RNSK[:, :rows, :, entry].float()
    step = {torch.float32: 1e-4, torch.bfloat16: 2**-8, torch.float8_e4m3fn: 2**-4}[dtype]
    torch.testing.assert_close(written_2RNK[0], k_RNK.clamp(-448, 448).float(), rtol=step, atol=1e-2 * (width < 4) + 2e-3)
    assert torch.equal(kv_2RNSK[1, :rows, :, entry].float(), narrowed(qkv_R3NK[:, 2], dtype).float())
    as_bytes = [cache[..., :entry, :].contiguous().view(torch.uint8) for cache in (kv_2RNSK, before)]
    assert torch.equal(*as_bytes)
    assert kv_2RNSK[:, rows:, :, entry:].float().isnan().all()
    assert kv_2RNSK[..., entry + 1 :, :].float().isnan().all()

    keys_RNTK, values_RNTK = kv_2RNSK[:, :rows, :, : entry + 1].double()
    expected_RNK = functional.scaled_dot_product_attention(q_RNK[:, :, None], keys_RNTK, values_RNTK)[:, :, 0]
    torch.testing.assert_close(read_RNK.double(), expected_RNK, rtol=1e-3, atol=2e-3)


def test_every_number_of_float8_is_read_and_written_as_pytorch_does():
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    # One head of one number, filled with one entry: the value is read as it is.
    kv_2RNSK = torch.zeros(2, 256, 1, 2, 1).to(torch.float8_e4m3fn)
    kv_2RNSK[1, :, 0, 0, 0] = codes
    one = torch.ones(2, 1), torch.zeros(2, 1), EPS
    read = compiled_kernels().attend(torch.zeros(256, 3, 1, 1), one, kv_2RNSK, 1).flatten()
    torch.testing.assert_close(read, codes.float() / 2, equal_nan=True, rtol=0, atol=0)

    numbers = codes.float()[~codes.float().isnan()].sort().values
    middles = (numbers[1:] + numbers[:-1]) / 2
    above, below = (middles.nextafter(torch.full_like(middles, side)) for side in (1e9, -1e9))
    rough = torch.cat([numbers, middles, above, below, torch.tensor([1e-9, -0.0, 449.0, 1e30, -1e30, float("inf")])])
    assert_written(rough, torch.float8_e4m3fn)


def test_numbers_become_bfloat16_as_pytorch_does_it():
    bits = torch.randint(-(2**31), 2**31 - 1, (5000,), dtype=torch.int64, generator=generator(0)).to(torch.int32)
    halves = (bits & ~0xFFFF) | 0x8000
    rough = torch.cat([bits, halves, halves + 1, halves - 1]).view(torch.float32)
    extremes = torch.tensor([0.0, -0.0, float("inf"), float("-inf"), 3.4e38])
    assert_written(torch.cat([rough[~rough.isnan()], extremes]), torch.bfloat16)


def assert_written(values: torch.Tensor, dtype: torch.dtype) -> None:
    """The cache holds what PyTorch makes of these, bit by bit; NaN as NaN."""
    values = torch.cat([values, torch.tensor([float("nan")])])
    kv_2RNSK = torch.zeros(2, len(values), 1, 1, 1).to(dtype)
    qkv_R3NK = torch.zeros(len(values), 3, 1, 1)
    qkv_R3NK[:, 2, 0, 0] = values
    compiled_kernels().attend(qkv_R3NK, (torch.ones(2, 1), torch.zeros(2, 1), EPS), kv_2RNSK, 0)
    written, expected = kv_2RNSK[1].flatten(), (narrowed(values, dtype) if dtype.itemsize == 1 else values.to(dtype))
    assert written[-1].float().isnan()
    assert torch.equal(written[:-1].view(torch.uint8), expected[:-1].view(torch.uint8))


def test_what_is_not_a_number_stays_so():
    linear = CompiledLinear(compiled_kernels(), torch.ones(3, 4), None, torch.zeros(3), gelu=True)
    x_RI = torch.ones(2, 4)
    x_RI[1, 2] = float("nan")
    assert linear(x_RI).isnan().tolist() == [[False] * 3, [True] * 3]
    qkv_R3NK, kv_2RNSK = torch.ones(2, 3, 1, 8), torch.zeros(2, 2, 1, 3, 8)
    qkv_R3NK[1, 0] = float("nan")
    read_RNK = compiled_kernels().attend(qkv_R3NK, (torch.ones(2, 8), torch.zeros(2, 8), EPS), kv_2RNSK, 2)
    assert read_RNK.isnan().flatten(1).tolist() == [[False] * 8, [True] * 8]


@pytest.mark.parametrize("dtype", WEIGHTS)
def test_a_row_is_the_same_to_the_bit_in_any_batch_and_with_any_threads(dtype):
    chance = generator(3)
    weight_OI = (torch.randn(70, 300, generator=chance) * 20).to(dtype)
    linear = CompiledLinear(
        compiled_kernels(), weight_OI, torch.rand(70) if dtype == torch.int8 else None, torch.randn(70), gelu=True
    )
    x_RI, threads = torch.randn(120, 300, generator=chance), torch.get_num_threads()
    together_RO = linear(x_RI)
    try:
        for start, stop in ((0, 1), (1, 3), (3, 8), (8, 25), (25, 120)):
            for torch_threads in (1, 2, 5):
                torch.set_num_threads(torch_threads)
                assert torch.equal(linear(x_RI[start:stop]), together_RO[start:stop])
    finally:
        torch.set_num_threads(threads)


def test_samples_are_those_of_pytorchs_products():
    """Up to ties, which a float32's last bit decides: none here."""
    asked = {"order": torch.arange(TINY.seq_len), "seed": 3}
    ours, theirs = (generate(lively().prepare(compiled=compiled), [0, 1, 2, 3], **asked) for compiled in (True, False))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("wrong", [torch.float16, torch.float64])
def test_other_types_are_refused(wrong):
    with pytest.raises(CapabilityError, match=r"compiled kernels need float32 or bfloat16.*; this is torch\.float"):
        lively().to(wrong).prepare(compiled=True)
    assert lively().to(wrong).prepare().weights.kernels is None


def test_weights_are_a_copy():
    weight_OI, bias_O = torch.ones(16, 1), torch.zeros(16)
    linear = CompiledLinear(compiled_kernels(), weight_OI, None, bias_O)
    weight_OI.add_(5)
    bias_O.add_(5)
    assert linear(torch.ones(1, 1)).tolist() == [[1.0] * 16]
