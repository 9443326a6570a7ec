"""Distributions and draws: what top-k, top-p and the inverse CDF promise, for any logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rarkit.errors import UserError
from rarkit.sampling import TokenChoice, distribution, draw, pick

LOGITS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(-20, 20, width=32))
ALMOST_ONE = float(np.nextafter(1.0, 0.0))


@given(LOGITS, st.floats(0.1, 10))
@settings(deadline=None)
def test_temperature_divides_logits(logits, temperature):
    exact = np.exp(logits.astype(np.float64) / temperature)
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        distribution(torch.from_numpy(logits), TokenChoice(temperature=temperature)), exact, rtol=1e-9, atol=0
    )


@given(LOGITS, st.integers(1, 14))
@settings(deadline=None)
def test_top_k_keeps_the_k_likeliest_in_proportion(logits, k):
    whole = distribution(torch.from_numpy(logits)).numpy()
    cut = distribution(torch.from_numpy(logits), TokenChoice(top_k=k)).numpy()
    for row, p, q in zip(logits, whole, cut, strict=True):
        likeliest = sorted(range(len(p)), key=lambda token, row=row: (-row[token], token))[:k]
        expected = np.zeros_like(p)
        expected[likeliest] = p[likeliest] / p[likeliest].sum()
        np.testing.assert_allclose(q, expected, atol=1e-12)


@given(LOGITS, st.floats(0.01, 1.0))
@settings(deadline=None)
def test_top_p_keeps_the_smallest_set_that_reaches_p(logits, top_p):
    whole = distribution(torch.from_numpy(logits)).numpy()
    cut = distribution(torch.from_numpy(logits), TokenChoice(top_p=top_p)).numpy()
    for p, q in zip(whole, cut, strict=True):
        kept = q > 0
        mass = p[kept].sum()
        assert kept.any()
        assert mass >= top_p - 1e-9 or kept.all() or p[~kept].max() < 1e-15
        assert kept.sum() == 1 or mass - p[kept].min() < top_p + 1e-9
        assert p[kept].min() >= p[~kept].max(initial=0.0)
        np.testing.assert_allclose(q[kept], p[kept] / mass, rtol=1e-9)


@given(LOGITS, st.integers(1, 5), st.floats(0.01, 1.0))
@settings(deadline=None)
def test_top_p_looks_at_what_top_k_left(logits, k, top_p):
    both = distribution(torch.from_numpy(logits), TokenChoice(top_k=k, top_p=top_p))
    first = distribution(torch.from_numpy(logits), TokenChoice(top_k=k))
    second = distribution(first.log(), TokenChoice(top_p=top_p))
    torch.testing.assert_close(both.sum(-1), torch.ones(len(both), dtype=torch.float64))
    # Where a sum meets top_p to within rounding, one token more or less may stay.
    same = ((both > 0).sum(-1) - (second > 0).sum(-1)).abs() <= 1
    assert same.all()


def test_top_p_by_hand():
    logits = torch.tensor([[0.5, 0.125, 0.25, 0.125]]).log()
    for top_p, expected in [
        (0.4, [1.0, 0, 0, 0]),
        (0.6, [2 / 3, 0, 1 / 3, 0]),
        (0.8, [4 / 7, 1 / 7, 2 / 7, 0]),
        (1.0, [0.5, 0.125, 0.25, 0.125]),
    ]:
        np.testing.assert_allclose(distribution(logits, TokenChoice(top_p=top_p))[0], expected, rtol=1e-6)
    np.testing.assert_allclose(distribution(logits, TokenChoice(top_k=2, top_p=0.66))[0], [1.0, 0, 0, 0], rtol=1e-6)


@given(LOGITS)
@settings(deadline=None)
def test_top_1_takes_the_likeliest(logits):
    tensor = torch.from_numpy(logits)
    for uniform in (0.0, 0.5, ALMOST_ONE):
        chosen = pick(tensor, torch.full((len(tensor),), uniform, dtype=torch.float64), TokenChoice(top_k=1))
        assert torch.equal(tensor.gather(1, chosen[:, None])[:, 0], tensor.amax(-1))


@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.sampled_from([0.0, 0.0, 1e-18, 0.1, 0.3, 1.0])).filter(np.any),
    st.one_of(st.sampled_from([0.0, ALMOST_ONE, 1.0]), st.floats(0, 1)),
)
@settings(deadline=None)
def test_draw_is_the_inverse_cdf_and_never_lands_on_zero(weights, uniform):
    p = weights / weights.sum()
    token = int(draw(torch.from_numpy(p)[None], torch.tensor([uniform], dtype=torch.float64)))
    assert p[token] > 0
    assert p[:token].sum() <= uniform + 1e-12
    assert p[: token + 1].sum() >= uniform - 1e-12


def test_draw_at_the_edges():
    p = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64)
    for uniform, expected in [(0.0, 1), (0.2499, 1), (0.25, 3), (0.9, 3), (ALMOST_ONE, 3), (1.0, 3)]:
        assert draw(p, torch.tensor([uniform], dtype=torch.float64)).item() == expected


@pytest.mark.parametrize("count", [1, 7, 1024])
def test_even_uniforms_hit_tokens_in_proportion(count):
    """On a fine even grid of u, each token's share is its probability to within one grid step."""
    p = distribution(torch.randn(1, count, generator=torch.Generator().manual_seed(count)))
    steps = 20_000
    uniform = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    shares = torch.bincount(draw(p.expand(steps, -1), uniform), minlength=count) / steps
    torch.testing.assert_close(shares.double(), p[0], atol=1.01 / steps, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: distribution(torch.zeros(4)), r"logits of torch.float32 \(4,\); they must be a tensor \(B, V\)"),
        (lambda: distribution(torch.zeros(2, 4, dtype=torch.int64)), r"logits of torch.int64 \(2, 4\)"),
        (lambda: distribution(np.zeros((2, 4))), r"logits of ndarray"),
        (lambda: draw(torch.full((2, 4), 0.25), torch.zeros(2)), r"probabilities_BV of float32 \(2, 4\)"),
        (lambda: draw(torch.full((2, 4), 0.25).double(), torch.zeros(3).double()), r"uniform_B of float64 \(3,\)"),
        (lambda: pick(torch.zeros(2, 4), torch.zeros(2)), r"uniform_B of float32 \(2,\)"),
    ],
)
def test_what_they_cannot_take_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
