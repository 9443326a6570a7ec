"""The cached decoder against the plain one and against the released implementation's probabilities."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.errors import GridError, UserError, WeightsError
from rarkit.models.rar import sampling_costs
from rarkit.models.rar.decoding import cuda_attention, cuda_graphs, steps
from rarkit.models.rar.decoding import decoder as cached
from rarkit.sampling import (
    Constant,
    Interval,
    Linear,
    PlainDecoder,
    PowerCosine,
    TokenChoice,
    decode,
    distribution,
    draw,
    generate,
    noise,
)
from rarkit.scan_orders.raster import Raster
from tests.models.rar.decoding.kernels import needs_kernels
from tests.models.rar.small import TINY, lively, parity

GUIDANCE = [
    None,
    Constant(scale=3.0),
    Linear(scale=4.0),
    PowerCosine(scale=6.0, power=1.5),
    Interval(scale=3.0, start=0.25, end=0.5),
    Constant(scale=0.0),
]
LENGTH = TINY.seq_len
PREFIX = TINY.model_copy(update={"target_aware": False, "conditioning": "prefix"})


def _order(seed: int) -> torch.Tensor:
    return torch.randperm(LENGTH, generator=torch.Generator().manual_seed(seed))


def _logits(model, labels_B, order_L, guidance, tokens_BL, decoder=None):
    guidance = guidance or Constant()
    scales = [guidance.scale_at(step, LENGTH) for step in range(LENGTH)]
    with torch.inference_mode():
        decoding = (decoder or type(model).decoder)(model, labels_B, order_L, scales)
        previous = [None, *tokens_BL[:, order_L].unbind(1)[:-1]]
        return torch.stack([decoding.logits(step, tokens_B) for step, tokens_B in enumerate(previous)], dim=1)


@pytest.mark.parametrize("entries_more", [1, 5, 32, pytest.param(None, marks=needs_kernels, id="compiled")])
@given(
    seed=st.integers(0, 2**16),
    labels=st.lists(st.integers(0, TINY.num_classes - 1), min_size=1, max_size=5),
    guidance=st.sampled_from(GUIDANCE),
    merged=st.booleans(),
    config=st.sampled_from([TINY, PREFIX]),
)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cached_equals_plain(monkeypatch, entries_more, seed, labels, guidance, merged, config):
    """Logits of both decoders, float32, within 2e-5 of the largest (absolute where that is below 1)."""
    if entries_more is not None:
        monkeypatch.setattr(steps, "ENTRIES_MORE", entries_more)
    order_L, model = _order(seed), lively(config)
    if merged:
        model = model.merge_positions(order_L)
    tokens_BL = torch.randint(TINY.codebook_size, (len(labels), LENGTH), generator=torch.Generator().manual_seed(seed))
    prepared = model.prepare(compiled=entries_more is None)
    fast = _logits(prepared, torch.tensor(labels), order_L, guidance, tokens_BL)
    plain = _logits(model, torch.tensor(labels), order_L, guidance, tokens_BL, PlainDecoder)
    torch.testing.assert_close(fast, plain, atol=2e-5 * max(1.0, plain.abs().max().item()), rtol=0)


def flash(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, seqused_k):
    """What PyTorch documents of ``varlen_attn``, row by row: the kernel is for GPUs alone."""
    assert query.is_contiguous()
    assert {tensor.dtype for tensor in (cu_seq_q, cu_seq_k, seqused_k)} == {torch.int32}
    assert torch.equal(cu_seq_q, torch.arange(len(query) + 1))
    assert key.shape == value.shape == (int(cu_seq_k[-1]), *query.shape[1:])
    assert max_q == 1
    assert max_k >= int(seqused_k.max())
    rows = []
    for row, used in enumerate(seqused_k.tolist()):
        start = int(cu_seq_k[row])
        scores_NT = torch.einsum("nk,tnk->nt", query[row], key[start : start + used]) * query.shape[-1] ** -0.5
        rows.append(torch.einsum("nt,tnk->nk", scores_NT.softmax(-1), value[start : start + used]))
    return torch.stack(rows)


@pytest.mark.parametrize("reads", [cuda_attention.MaskedReads, cuda_attention.FlashReads])
@pytest.mark.parametrize("bucket", [1, 5, 64])
@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
@given(
    seed=st.integers(0, 2**16),
    labels=st.lists(st.integers(0, TINY.num_classes - 1), min_size=1, max_size=5),
    guidance=st.sampled_from(GUIDANCE),
    config=st.sampled_from([TINY, PREFIX]),
)
@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fixed_shapes_equal_plain(monkeypatch, reads, bucket, budget, seed, labels, guidance, config):
    """What CUDA captures, run eagerly: two batches of one size after each other in the same memory."""
    monkeypatch.setattr(cached, "steps_for", lambda prepared: cuda_graphs.CapturedSteps)
    monkeypatch.setattr(cuda_graphs, "fixed_reads_for", lambda prepared: reads)
    monkeypatch.setattr(cuda_attention, "varlen_attention", lambda: flash)
    monkeypatch.setattr(cuda_graphs, "BUCKET", bucket)
    monkeypatch.setattr(sampling_costs, "TABLE_BYTES", budget)
    prepared = lively(config).prepare()
    for shift in (0, 1):
        order_L, labels_B = _order(seed + shift), (torch.tensor(labels) + shift) % TINY.num_classes
        tokens_BL = torch.randint(TINY.codebook_size, (len(labels), LENGTH), generator=torch.Generator().manual_seed(seed))
        fast, plain = (_logits(prepared, labels_B, order_L, guidance, tokens_BL, decoder) for decoder in (None, PlainDecoder))
        torch.testing.assert_close(fast, plain, atol=2e-5 * max(1.0, plain.abs().max().item()), rtol=0)


@pytest.mark.parametrize("entries_more", [32, pytest.param(None, marks=needs_kernels, id="compiled")])
@pytest.mark.parametrize("budget", [1, 20_000, 10**9])
def test_tables_in_pieces_are_the_same_tables(monkeypatch, budget, entries_more):
    monkeypatch.setattr(sampling_costs, "TABLE_BYTES", budget)
    test_cached_equals_plain.hypothesis.inner_test(
        monkeypatch, entries_more, 5, [0, 3, 3, 1], PowerCosine(scale=5.0, power=1.0), False, TINY
    )


@pytest.mark.parametrize("attention", [None, Plain().build(), Flex().build()])
@pytest.mark.parametrize("decoder", [None, PlainDecoder])
@pytest.mark.parametrize("setting", [0, 1, 2])
def test_guided_parity(decoder, setting, attention):
    small = parity()
    if attention is not None:
        small.model.attention = attention
    tokens_BL, asked = small.tensors["inputs/tokens"], small.guidance[setting]
    steps = decode(
        small.model,
        small.tensors["inputs/labels"],
        order=np.arange(tokens_BL.shape[1]),
        guidance=PowerCosine(scale=asked["scale"], power=asked["power"]),
        temperature=asked["temperature"],
        forced_tokens=tokens_BL,
        decoder=decoder,
    )
    probabilities_BLV = torch.stack([step.probabilities_BV for step in steps], dim=1).float()
    torch.testing.assert_close(probabilities_BLV, small.tensors[f"expect/guided/{setting}/probs"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_a_sample_depends_on_its_index_not_on_its_batch(guidance):
    model, order_L = lively(), _order(1)
    labels = np.arange(11) % TINY.num_classes
    together = generate(model, labels, order=order_L, guidance=guidance, seed=7, indices=np.arange(100, 111))
    for start, stop in pairwise([0, 1, 4, 11]):
        part = generate(
            model, labels[start:stop], order=order_L, guidance=guidance, seed=7, indices=np.arange(100 + start, 100 + stop)
        )
        assert torch.equal(part, together[start:stop])
    back = generate(model, labels[::-1].copy(), order=order_L, guidance=guidance, seed=7, indices=np.arange(110, 99, -1))
    assert torch.equal(back.flip(0), together)


@pytest.mark.parametrize("decoder", [None, PlainDecoder])
def test_tokens_are_drawn_with_the_samples_own_noise_and_placed_on_the_grid(decoder):
    model, order_L, labels = lively(), _order(2), [0, 1, 4]
    asked = {"order": order_L, "guidance": Constant(scale=2.0), "temperature": 0.8, "top_k": 9, "top_p": 0.95}
    tokens_BL = generate(model, labels, seed=3, indices=[5, 9, 2], decoder=decoder, **asked)
    uniforms_BL = torch.from_numpy(noise(3, [5, 9, 2], LENGTH))
    logits_BLV = _logits(model, torch.tensor(labels), order_L, asked["guidance"], tokens_BL, PlainDecoder)
    for step in range(LENGTH):
        drawn_B = draw(distribution(logits_BLV[:, step], TokenChoice(temperature=0.8, top_k=9, top_p=0.95)), uniforms_BL[:, step])
        assert torch.equal(drawn_B, tokens_BL[:, order_L[step]])


@pytest.mark.parametrize("choice", [{}, {"top_k": 3}, {"top_p": 0.5}, {"guidance": 2.0}, {"temperature": 1e-9}], ids=str)
@pytest.mark.parametrize("damage", [torch.nan, torch.inf])
@pytest.mark.parametrize("decoder", [None, PlainDecoder])
def test_no_token_is_drawn_from_logits_that_are_nan(choice, damage, decoder):
    """Of the row of a single sample, from the step on at which they are."""
    model, last, steps = lively(), TINY.num_classes - 1, []
    asked = {"order": _order(3), "decoder": decoder, **choice}
    expected = generate(model, [0, 1], **asked)
    with torch.no_grad():
        model.embeddings.weight[model.sizes.codebook_size + 1 + last] = damage
    assert torch.equal(generate(model, [0, 1], **asked), expected)
    with pytest.raises(WeightsError, match=r"the logits of the model \(RAR\) are NaN or infinite.* weights"):
        generate(model, [0, last, 1], on_step=lambda step, _: steps.append(step), **asked)
    assert not steps
    with pytest.raises(UserError, match="temperature 1e-309 makes logits infinite"):
        generate(lively(), [0], order=_order(3), temperature=1e-309)


def test_merged_model_samples_the_same_tokens():
    model, order_L = lively(), _order(4)
    asked = {"order": order_L, "guidance": Linear(scale=3.0), "seed": 1}
    expected = generate(model, [0, 1, 2, 3], **asked)
    assert torch.equal(generate(model.merge_positions(order_L), [0, 1, 2, 3], **asked), expected)


def test_merged_model_refuses_another_order():
    with pytest.raises(WeightsError, match="merged for the scan order 0, 1, 2"):
        generate(lively().merge_positions(torch.arange(LENGTH)), [0], order=torch.arange(LENGTH).flip(0))


def test_samples_follow_the_models_own_likelihood():
    """Over many samples, the first token's frequencies are its probabilities (chi-square at a fixed seed)."""
    from scipy.stats import chisquare

    model, order_L, count = lively(scale=0.1), _order(0), 4000
    first = next(decode(model, [2], order=order_L)).probabilities_BV[0].numpy()
    tokens_B = next(decode(model, np.full(count, 2), order=order_L, seed=11)).tokens_B.numpy()
    observed = np.bincount(tokens_B, minlength=TINY.codebook_size)
    assert chisquare(observed, first * count).pvalue > 1e-3


def test_progress_shows_the_tokens_so_far():
    seen = []
    model, order_L = lively(), _order(6)
    tokens_BL = generate(model, [0, 1], order=order_L, on_step=lambda step, raster_BL: seen.append(raster_BL.clone()))
    assert len(seen) == LENGTH
    for step, raster_BL in enumerate(seen):
        visited_L = torch.zeros(LENGTH, dtype=torch.bool)
        visited_L[order_L[: step + 1]] = True
        assert torch.equal(raster_BL, tokens_BL.where(visited_L, -1))


def test_sampling_neither_drops_out_nor_leaves_a_trace():
    model, order_L = lively().train(), _order(0)
    expected = generate(lively(), [0, 1], order=order_L)
    state = torch.random.get_rng_state()
    assert torch.equal(generate(model, [0, 1], order=order_L), expected)
    assert model.training
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"order": [0, 1]}, GridError, "12 tokens per image, but the order is int64 \\(2,\\)"),
        ({"order": Raster()}, GridError, "the order is Raster\\(name='raster'\\). Pass .* a scan order's order\\(height, width\\)"),
        ({"order": Raster}, GridError, "the order is the class Raster"),
        ({"order": "raster"}, GridError, "the order is 'raster'"),
        ({"order": None}, GridError, "the order is None"),
        ({"order": [True] * LENGTH}, GridError, "the order is bool \\(12,\\)"),
        ({"order": [[0], [1, 2]]}, GridError, "the order is \\[\\[0\\], \\[1, 2\\]\\]"),
        ({"order": [0] * LENGTH}, GridError, "does not visit each of the 12 cells exactly once"),
        ({"labels": [0, 5]}, UserError, "label 5 is not one of the model's classes, 0 … 4"),
        ({"labels": [-1]}, UserError, "label -1"),
        ({"labels": [0.5]}, UserError, "the labels are float64 \\(1,\\); pass one class id per sample"),
        ({"labels": torch.tensor([0.5])}, UserError, "the labels are float32 \\(1,\\)"),
        ({"labels": 3}, UserError, "the labels are 3; pass one class id per sample"),
        ({"labels": ["3"]}, UserError, "the labels are .*; pass one class id per sample"),
        ({"labels": None}, UserError, "the labels are None"),
        ({"labels": [True]}, UserError, "the labels are bool"),
        ({"seed": "a"}, UserError, "the seed is 'a'; it must be a whole number"),
        ({"seed": 1.5}, UserError, "the seed is 1.5"),
        ({"indices": [1, 2, 3]}, UserError, "2 labels, but the sample indices have shape \\(3,\\)"),
        ({"indices": [0.5, 1.5]}, UserError, "must be integers from 0"),
        ({"indices": [0, -1]}, UserError, "sample indices go from -1 to 0; they must be integers from 0"),
        ({"temperature": 0.0}, UserError, "temperature is 0.0"),
        ({"top_k": 0}, UserError, "top_k is 0"),
        ({"guidance": -1}, UserError, "guidance is -1; pass a number from 0, or a schedule of rarkit.sampling"),
        ({"guidance": "4"}, UserError, "guidance is '4'; pass a number from 0"),
        ({"guidance": True}, UserError, "guidance is True; pass a number from 0"),
        ({"guidance": Constant}, UserError, "guidance is the class Constant; pass a number from 0"),
        ({"top_p": 0.0}, UserError, "top_p is 0.0"),
        ({"top_p": 1.5}, UserError, "top_p is 1.5"),
        ({"temprature": 0.9}, UserError, "no setting 'temprature' for choosing tokens; did you mean 'temperature'"),
        ({"choice": TokenChoice(), "top_k": 1}, UserError, "both choice and its fields by name \\(top_k\\) are given"),
    ],
)
def test_what_cannot_be_sampled_is_refused(change, error, message):
    asked = {"labels": [0, 1], "order": np.arange(LENGTH), **change}
    with pytest.raises(error, match=message):
        generate(lively(), asked.pop("labels"), **asked)


@pytest.mark.parametrize("scale", [0, 1.0, 3, np.float32(2.5)])
def test_a_number_is_constant_guidance(scale):
    drawn = [generate(lively(), [0, 1], order=_order(2), guidance=guidance) for guidance in (scale, Constant(scale=float(scale)))]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("guidance", "guided"),
    [(None, 0), (Constant(scale=2.0), LENGTH), (Interval(scale=3.0, end=0.5), LENGTH // 2), (Linear(scale=1.0), 0)],
)
def test_unconditional_rows_are_computed_only_as_long_as_needed(guidance, guided):
    model, rows, keys = lively(), [], []

    def spy(q_BNSK, k_BNTK, v_BNTK, *, causal, dropout=None):
        rows.append(len(q_BNSK))
        keys.append(k_BNTK.shape[2])
        return plain(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)

    plain, model.attention = model.attention, spy
    generate(model, [0, 1, 2], order=_order(0), guidance=guidance)
    depth = TINY.depth
    # cls goes through by itself, before the first step
    assert rows[::depth] == [6] * (guided + (guided > 0)) + [3] * (LENGTH - guided + (guided == 0))
    assert keys[::depth] == list(range(1, LENGTH + 2))
