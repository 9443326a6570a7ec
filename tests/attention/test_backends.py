"""Every backend against the plain one in float64, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.base import Dropout
from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.errors import CapabilityError

BACKENDS = [Plain(), SDPA(), Flex()]
SHAPES = st.fixed_dictionaries(
    {"batch": st.integers(1, 3), "heads": st.integers(1, 3), "queries": st.integers(1, 20), "width": st.integers(1, 20)}
)


def _inputs(shape, keys, seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape["batch"], shape["heads"], length, shape["width"], generator=generator, dtype=torch.float64).to(dtype)
        for length in (shape["queries"], keys, keys)
    ]


@pytest.mark.parametrize("backend", [Plain(), SDPA()], ids=lambda backend: backend.name)
@given(shape=SHAPES, keys=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_output_against_plain_in_float64(backend, shape, keys, causal, seed):
    assert_close_to_plain_in_float64(backend, shape, keys, causal, seed)


@given(shape=SHAPES, keys=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=8)  # for each shape torch traces flex attention anew
def test_flex_against_plain_in_float64(shape, keys, causal, seed):
    assert_close_to_plain_in_float64(Flex(), shape, keys, causal, seed)


def assert_close_to_plain_in_float64(backend, shape, keys, causal, seed):
    """float32 within 1e-5."""
    q, k, v = _inputs(shape, shape["queries"] if causal else keys, seed)
    expected = Plain().build()(q.double(), k.double(), v.double(), causal=causal)
    output = backend.build()(q, k, v, causal=causal)
    assert output.dtype == q.dtype
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", [Plain(), SDPA()], ids=lambda backend: backend.name)
@given(shape=SHAPES, keys=st.integers(1, 20), causal=st.booleans(), seed=st.integers(0, 2**16))
@settings(max_examples=30)
def test_gradients_against_plain_in_float64(backend, shape, keys, causal, seed):
    """float32 within 1e-4."""
    inputs = _inputs(shape, shape["queries"] if causal else keys, seed)
    upstream = _inputs(shape, 1, seed + 1)[0]
    gradients = []
    for function, dtype in ((Plain().build(), torch.float64), (backend.build(), torch.float32)):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
        (function(*leaves, causal=causal) * upstream.to(dtype)).sum().backward()
        gradients.append([leaf.grad.double() for leaf in leaves])
    for expected, gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_plain_by_hand_and_all_alike_in_bfloat16(backend):
    q, k, v = _inputs({"batch": 2, "heads": 2, "queries": 9, "width": 16}, 9, 0, torch.bfloat16)
    output = backend.build()(q, k, v, causal=True)
    assert output.dtype == torch.bfloat16
    for query in range(9):
        scores = torch.einsum("bnk,bntk->bnt", q[:, :, query].double(), k[:, :, : query + 1].double()) / 4.0
        expected = torch.einsum("bnt,bntk->bnk", scores.softmax(-1), v[:, :, : query + 1].double())
        torch.testing.assert_close(output[:, :, query].double(), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("backend", [Plain(), SDPA()], ids=lambda backend: backend.name)
def test_dropout_zeroes_weights_and_keeps_the_mean(backend):
    """With values of one hot each, the output is the weights themselves."""
    q = torch.zeros(400, 2, 4, 4)
    weights = backend.build()(q, q, torch.eye(4).expand(400, 2, 4, 4), causal=False, dropout=Dropout(0.25, torch.arange(400), 0))
    dropped = weights == 0
    torch.testing.assert_close(weights[~dropped], torch.full_like(weights[~dropped], 0.25 / 0.75))
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_flex_says_what_it_cannot_do():
    q = torch.randn(1, 1, 3, 4)
    with pytest.raises(CapabilityError, match=r"attention_dropout is 0\.1: set it to 0, or choose sdpa"):
        Flex().build()(q, q, q, causal=True, dropout=Dropout(0.1, torch.arange(1), 0))
    with pytest.raises(CapabilityError, match="no backward pass on cpu"):
        Flex().build()(q.requires_grad_(), q, q, causal=True)
    with torch.no_grad():
        assert Flex().build()(q, q, q, causal=True).shape == q.shape
    assert "no backward pass on cpu" in str(Flex().capability("cpu", "float32"))
    assert "not float64" in str(Flex().capability("cuda", "float64"))
    assert Flex().capability("cuda:1", "bfloat16") is None


def test_a_mask_made_while_sampling_serves_training_too():
    from rarkit.attention import flex

    flex._causal_mask.cache_clear()
    q = torch.randn(1, 1, 5, 4)
    with torch.inference_mode():
        Flex().build()(q, q, q, causal=True)
    assert not flex._causal_mask(5, q.device).kv_num_blocks.is_inference()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
@pytest.mark.parametrize("causal", [True, False])
def test_on_cuda_against_plain_in_float64(backend, causal):
    """bfloat16 within 0.03, gradients within 0.1."""
    inputs = [tensor.cuda() for tensor in _inputs({"batch": 2, "heads": 4, "queries": 257, "width": 48}, 257, 0)]
    results = []
    for function, dtype in ((Plain().build(), torch.float64), (backend.build(), torch.bfloat16)):
        leaves = [tensor.bfloat16().to(dtype).requires_grad_() for tensor in inputs]
        read = function(*leaves, causal=causal)
        read.sum().backward()
        results.append([read.detach().double(), *(leaf.grad.double() for leaf in leaves)])
    for part, (expected, result) in enumerate(zip(*results, strict=True)):
        torch.testing.assert_close(result, expected, atol=0.1 if part else 0.03, rtol=0.03)
