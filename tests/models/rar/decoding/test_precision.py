"""Decoding with fewer bits: bfloat16, int8 weights, a float8 cache, each with its stated tolerance.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.plain import Plain
from rarkit.errors import UserError
from rarkit.models.rar.decoding import cuda_graphs, projections, steps
from rarkit.models.rar.decoding import decoder as cached
from rarkit.models.rar.decoding.native_steps import CompiledSteps
from rarkit.models.rar.decoding.projections import int8_projection, projection, quantised, rows_dtype
from rarkit.runtime.processors import is_x86, lacks_bfloat16
from rarkit.sampling import Constant, PlainDecoder, PowerCosine, generate
from tests.models.rar.decoding.kernels import NONE, needs_kernels
from tests.models.rar.small import TINY, lively

LENGTH = TINY.seq_len
PRECISIONS = {
    "bfloat16": ({}, 0.02),
    "int8": ({"int8": True}, 0.03),
    "float8 cache": ({"float8_cache": True}, 0.06),
    "int8, float8 cache": ({"int8": True, "float8_cache": True}, 0.06),
}
"""What ``prepare`` is told, and the tolerance: the largest error of a logit, against the largest logit of the float32 model."""


def logits(model, order_L, guidance, tokens_BL, labels_B, decoder=None):
    scales = [guidance.scale_at(step, LENGTH) for step in range(LENGTH)]
    with torch.inference_mode():
        decoding = (decoder or type(model).decoder)(model, labels_B, order_L, scales)
        previous = [None, *tokens_BL[:, order_L].unbind(1)[:-1]]
        return torch.stack([decoding.logits(step, tokens_B) for step, tokens_B in enumerate(previous)], dim=1)


@given(
    seed=st.integers(0, 2**16),
    labels=st.lists(st.integers(0, TINY.num_classes - 1), min_size=1, max_size=5),
    guidance=st.sampled_from([Constant(), Constant(scale=2.0), PowerCosine(scale=3.0, power=1.5)]),
    merged=st.booleans(),
    precision=st.sampled_from(sorted(PRECISIONS)),
    layout=st.sampled_from([steps.DenseSteps, steps.SlicedSteps, cuda_graphs.CapturedSteps, *([] if NONE else [CompiledSteps])]),
    widened=st.booleans(),
    widened_bytes=st.sampled_from([1, 2**12, 2**22]),
)
@settings(max_examples=30)
def test_fewer_bits_stay_close_to_float32(seed, labels, guidance, merged, precision, layout, widened, widened_bytes):
    asked, tolerance = PRECISIONS[precision]
    order_L = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(seed))
    exact, rough = lively(scale=0.05), lively(scale=0.05).bfloat16()
    if merged:
        exact, rough = exact.merge_positions(order_L), rough.merge_positions(order_L)
    tokens_BL = torch.randint(TINY.codebook_size, (len(labels), LENGTH), generator=torch.Generator().manual_seed(seed))
    labels_B = torch.tensor(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cached, "steps_for", lambda prepared: layout)
        patch.setattr(steps, "WIDENED_BYTES", widened_bytes)
        if widened:
            patch.setattr(projections, "lacks_bfloat16", is_x86)
        prepared = rough.prepare(**asked, compiled=layout is CompiledSteps)
        rough_BLV = logits(prepared, order_L, guidance, tokens_BL, labels_B)
    exact_BLV = logits(exact, order_L, guidance, tokens_BL, labels_B, PlainDecoder)
    scale = max(1.0, *(abs(guidance.scale_at(step, LENGTH)) for step in range(LENGTH)))
    assert (rough_BLV - exact_BLV).abs().max() <= tolerance * scale * exact_BLV.abs().max()


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_samples_with_fewer_bits_are_tokens_and_depend_on_seed_and_index(precision):
    model = lively(scale=0.05).bfloat16().prepare(**PRECISIONS[precision][0])
    asked = {"order": torch.arange(LENGTH), "guidance": Constant(scale=2.0)}
    tokens_BL = generate(model, [0, 1, 2], seed=4, **asked)
    assert ((tokens_BL >= 0) & (tokens_BL < TINY.codebook_size)).all()
    assert torch.equal(generate(model, [0, 1, 2], seed=4, **asked), tokens_BL)
    assert not torch.equal(generate(model, [0, 1, 2], seed=5, **asked), tokens_BL)


@given(outputs=st.integers(1, 40), inputs=st.integers(1, 40), rows=st.integers(1, 9), seed=st.integers(0, 99), gelu=st.booleans())
def test_int8_weights_are_within_half_a_step_and_multiply_as_such(outputs, inputs, rows, seed, gelu):
    generator = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    for weight in linear.parameters():
        weight.copy_(torch.randn(weight.shape, generator=generator))
    weight_OI, scale_O = quantised(linear.weight)
    restored_OI = weight_OI * scale_O[:, None]
    assert (weight_OI.dtype, int(weight_OI.abs().max())) == (torch.int8, 127)
    assert ((restored_OI - linear.weight).abs() <= scale_O[:, None] * 0.5001).all()
    x_RI = torch.randn(rows, inputs, generator=generator).bfloat16()
    expected_RO = x_RI.float() @ restored_OI.T + linear.bias
    expected_RO = torch.nn.functional.gelu(expected_RO) if gelu else expected_RO
    # Eight bits of bfloat16 in sums of that many products, and in scale and bias.
    bound = (x_RI.float().abs() @ restored_OI.abs().T + linear.bias.abs()) * 2**-6
    assert ((int8_projection(linear, gelu=gelu)(x_RI).float() - expected_RO).abs() <= bound + 1e-3).all()


@pytest.mark.skipif(not is_x86(torch.device("cpu")), reason="needs an x86 processor")
@given(outputs=st.integers(1, 70), inputs=st.integers(1, 70), rows=st.integers(1, 9), seed=st.integers(0, 99), gelu=st.booleans())
def test_bfloat16_weights_meet_float32_rows_where_there_are_no_instructions_for_bfloat16(outputs, inputs, rows, seed, gelu):
    generator = torch.Generator().manual_seed(seed)
    linear = torch.nn.Linear(inputs, outputs).requires_grad_(False)
    for weight in linear.parameters():
        # From far below the smallest normal number of float16 to large ones.
        powers = torch.randint(-40, 12, weight.shape, generator=generator)
        weight.copy_(torch.randn(weight.shape, generator=generator) * 2.0**powers)
    linear = linear.bfloat16()
    x_RI = torch.randn(rows, inputs, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(projections, "lacks_bfloat16", is_x86)
        assert rows_dtype(linear.weight) == torch.float32
        projected_RO = projection(linear, gelu=gelu)(x_RI)
        product_RO = projections.product(linear, x_RI)
    x_RI, linear = x_RI.double(), linear.double()
    # Float32's own error in sums of that many products; and weights to 2⁻²⁵.
    bound_RO = (x_RI.abs() @ linear.weight.abs().T + linear.bias.abs()) * 2**-20
    assert ((product_RO - linear(x_RI)).abs() <= bound_RO).all()
    expected_RO = torch.nn.functional.gelu(linear(x_RI)) if gelu else linear(x_RI)
    assert ((projected_RO - expected_RO).abs() <= 1.2 * (bound_RO + x_RI.abs().sum(1, keepdim=True) * 2**-25) + 1e-7).all()


def test_rows_are_in_the_weights_own_type_elsewhere():
    for dtype in (torch.float32, torch.float64, torch.float16):
        assert rows_dtype(torch.zeros(1, dtype=dtype)) == dtype
    assert (rows_dtype(torch.zeros(1, dtype=torch.bfloat16)) == torch.float32) == lacks_bfloat16(torch.device("cpu"))


def test_a_layer_of_zeros_has_int8_weights_too():
    weight_OI, scale_O = quantised(torch.zeros(3, 4))
    assert not weight_OI.any()
    assert torch.isfinite(scale_O).all()


def test_what_is_too_large_for_float8_becomes_its_largest_number():
    values = torch.tensor([0.0, 1.0, -447.0, 1e4, -1e30, float("inf")])
    narrowed = steps.narrowed(values, torch.float8_e4m3fn).float()
    torch.testing.assert_close(narrowed, torch.tensor([0.0, 1.0, -448.0, 448.0, -448.0, 448.0]))
    assert steps.narrowed(values, torch.float32) is values


def test_int8_is_refused_where_there_is_no_kernel_for_it():
    with pytest.raises(UserError, match=r"int8 weights need a bfloat16 model on the CPU; this one is torch\.float32 on cpu"):
        lively().prepare(int8=True)


def test_a_narrow_cache_takes_a_quarter_of_the_memory():
    model = lively()
    for layout in (steps.DenseSteps, steps.SlicedSteps):
        sizes = [layout(model.prepare(float8_cache=narrow).weights, rows=3).kv.nbytes for narrow in (False, True)]
        assert sizes[0] == 4 * sizes[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_another_attention_than_torchs_reads_the_cache_itself(dtype):
    model = lively(scale=0.05).to(dtype)
    model.attention = Plain().build()
    assert cached.steps_for(model.prepare().weights) is steps.SlicedSteps
    assert cached.steps_for(lively().prepare(compiled=False).weights) is steps.DenseSteps


@needs_kernels
def test_the_compiled_kernels_decode_where_they_are_faster():
    assert cached.steps_for(lively().prepare().weights) is CompiledSteps
    rough = lively().bfloat16()
    assert cached.steps_for(rough.prepare(int8=True).weights) is CompiledSteps
    assert cached.steps_for(rough.prepare(compiled=True).weights) is CompiledSteps
    assert (cached.steps_for(rough.prepare().weights) is CompiledSteps) == (not torch.cpu._is_avx512_bf16_supported())
