"""Masks from seeds: the generator, and that a mask depends on nothing but key, place and size of a row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.base import Dropout
from rarkit.attention.cpu import seeded_attention
from rarkit.attention.plain import plain_attention
from rarkit.attention.sdpa import fused_attention
from rarkit.attention.seeded_masks import PLACES, draws, dropped_out, kept, kept_scale, layer_keys, mask_keys


def test_the_generator_is_splitmix64():
    """The first numbers of seed 1234567, as its authors' code in C gives them."""
    drawn = draws(torch.tensor([1234567]), 1, 12).flatten().contiguous().view(torch.int64)
    assert [int(number) % 2**64 for number in drawn] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(heads=st.integers(1, 3), rows=st.integers(1, 9), columns=st.integers(1, 30), data=st.data())
def test_a_part_has_the_draws_of_the_whole(heads, rows, columns, data):
    keys_B = mask_keys(torch.arange(3), 1, 2)
    whole = draws(keys_B, (heads, rows), columns)
    start, first = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(1, columns))
    stop = data.draw(st.integers(start + 1, rows))
    part = draws(keys_B[1:], (heads, rows), columns, slice(start, stop), first)
    assert torch.equal(part, whole[1:, :, start:stop, :first])


def test_draws_are_uniform_and_independent():
    drawn = draws(layer_keys(torch.arange(4), 2).flatten(), 100, 1024).double() / 2**15
    count = drawn[0].numel()
    assert drawn.mean((1, 2)).abs().max() < 5 / (3 * count) ** 0.5
    # Each of the four draws of a number, in sixteen classes.
    for lane in range(4):
        shares = torch.histc(drawn[..., lane::4], 16, -1, 1) / drawn[..., lane::4].numel()
        assert (shares - 1 / 16).abs().max() < 5 * (1 / 16 / (drawn.numel() / 4)) ** 0.5
    correlations = torch.corrcoef(drawn.flatten(1)) - torch.eye(len(drawn))
    assert correlations.abs().max() < 6 / count**0.5


def test_keys_differ_by_seed_layer_and_place():
    keys = layer_keys(torch.arange(50), 24)
    assert len(keys.unique()) == keys.numel()
    assert torch.equal(keys[3, 2], mask_keys(torch.arange(50), 3, 2))
    assert keys.shape == (24, PLACES, 50)


@given(probability=st.floats(0, 1, exclude_min=True, exclude_max=True))
@settings(max_examples=20)
def test_the_mean_stays(probability):
    values = dropped_out(torch.ones(2, 64, 64, dtype=torch.float64), torch.arange(2), probability)
    share = kept(torch.arange(2), 64, 64, probability).double().mean()
    assert values.mean().item() == pytest.approx(share.item() * kept_scale(probability))
    assert abs(share - 1 / kept_scale(probability)) < 0.05
    assert 1 / kept_scale(probability) == pytest.approx(1 - probability, abs=2**-16)


@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 20) | st.just(200),
    causal=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_attention_on_the_cpu_against_plain_with_the_same_masks(batch, heads, length, causal, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(batch, length, heads, 6, generator=generator, dtype=torch.float64).transpose(1, 2) for _ in range(3)]
    upstream, dropout = (
        torch.randn(batch, heads, length, 6, generator=generator, dtype=torch.float64),
        Dropout(0.3, torch.arange(batch), 2),
    )
    results = []
    for function in (plain_attention, seeded_attention):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        read = function(*leaves, causal=causal, dropout=dropout)
        results.append([read.detach(), *torch.autograd.grad(read, leaves, upstream)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=0)


def test_fused_attention_on_the_cpu_drops_by_seeds_in_bfloat16_too():
    q, k, v = (torch.randn(2, 2, 70, 8, generator=torch.Generator().manual_seed(part)) for part in range(3))
    dropout = Dropout(0.3, torch.arange(2), 0)
    expected = plain_attention(q, k, v, causal=True, dropout=dropout)
    torch.testing.assert_close(fused_attention(q, k, v, causal=True, dropout=dropout), expected, atol=1e-5, rtol=0)
    low = fused_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=True, dropout=dropout)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("rows", "columns"), [(17, 32), (16, 128), (1, 5)])
def test_compiled_draws_are_the_same(rows, columns):
    """By the real compiler: products of an index that overflow are undefined in its C++, and it wrote beyond the tensor."""
    keys_B = mask_keys(torch.arange(4), 1, 2)
    compiled = torch.compile(lambda keys_B: draws(keys_B, rows, columns))
    for _ in range(3):
        assert torch.equal(compiled(keys_B), draws(keys_B, rows, columns))
