"""Decoding with a KV cache against the plain decoder."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.errors import CapabilityError, UserError
from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.sampling import Constant, Interval, Linear, PlainDecoder, PowerCosine, generate
from tests.models.llama_ar.small import TINY, lively

GUIDANCE = [
    Constant(),
    Constant(scale=3.0),
    Linear(scale=4.0),
    PowerCosine(scale=6.0, power=1.5),
    Interval(scale=3.0, start=0.25, end=0.5),
    Constant(scale=0.0),
]
LENGTH = TINY.seq_len


def _logits(decoder, model, labels_B, order_L, guidance, tokens_BL):
    scales = [guidance.scale_at(step, LENGTH) for step in range(LENGTH)]
    with torch.inference_mode():
        decoding = decoder(model, labels_B, order_L, scales)
        previous = [None, *tokens_BL[:, order_L].unbind(1)[:-1]]
        return torch.stack([decoding.logits(step, tokens_B) for step, tokens_B in enumerate(previous)], dim=1)


@pytest.mark.parametrize("backend", [SDPA(), Plain()], ids=lambda backend: backend.name)
@given(
    seed=st.integers(0, 2**16),
    labels=st.lists(st.integers(0, TINY.num_classes - 1), min_size=1, max_size=5),
    guidance=st.sampled_from(GUIDANCE),
    grid=st.sampled_from([(3, 4), (2, 6), (1, 12), (12, 1)]),
)
@settings(max_examples=20, deadline=None)
def test_cached_equals_plain(backend, seed, labels, guidance, grid):
    """Logits of both decoders, float32, within 2e-5 of the largest (absolute where that is below 1)."""
    model = lively(TINY.model_copy(update={"grid": grid}))
    reference = lively(model.config)
    model.attention = backend.build()
    generator = torch.Generator().manual_seed(seed)
    order_L = torch.randperm(LENGTH, generator=generator)
    tokens_BL = torch.randint(TINY.codebook_size, (len(labels), LENGTH), generator=generator)
    arguments = torch.tensor(labels), order_L, guidance, tokens_BL
    fast = _logits(lambda prepared, *rest: prepared.decoder(*rest), model.prepare(), *arguments)
    plain = _logits(PlainDecoder, reference, *arguments)
    torch.testing.assert_close(fast, plain, atol=2e-5 * max(1.0, plain.abs().max().item()), rtol=0)


def test_bfloat16_is_close_and_its_cache_is_bfloat16():
    model = lively(scale=0.05).bfloat16()
    tokens_BL = torch.randint(20, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    arguments = torch.arange(3), torch.arange(LENGTH), Constant(scale=2.0), tokens_BL
    fast = _logits(lambda prepared, *rest: prepared.decoder(*rest), model.prepare(), *arguments)
    plain = _logits(PlainDecoder, model, *arguments)
    assert (fast - plain).abs().max() < 0.05 * plain.abs().max()
    assert model.prepare().decoder(torch.arange(3), torch.arange(LENGTH), [1.0] * LENGTH).kv.dtype == torch.bfloat16


@pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda guidance: guidance.name)
def test_the_tokens_are_those_of_the_plain_decoder(guidance):
    model, order_L = lively(), torch.randperm(LENGTH, generator=torch.Generator().manual_seed(1))
    asked = {"order": order_L, "guidance": guidance, "temperature": 0.9, "seed": 3}
    expected = generate(model, [0, 1, 4, 4], decoder=PlainDecoder, **asked)
    assert torch.equal(generate(model, [0, 1, 4, 4], **asked), expected)


@pytest.mark.parametrize(
    ("guidance", "guided"), [(Constant(), 0), (Constant(scale=2.0), LENGTH), (Interval(scale=3.0, end=0.5), LENGTH // 2)]
)
def test_it_attends_to_what_is_filled_and_drops_the_unconditional_rows(guidance, guided):
    model, rows, keys, memory = lively(), [], [], set()

    def spy(q_BNSK, k_BNTK, v_BNTK, *, causal, dropout=None):
        assert not causal
        assert q_BNSK.shape[2] == 1
        rows.append(len(q_BNSK))
        keys.append(k_BNTK.shape[2])
        memory.add(k_BNTK.untyped_storage().data_ptr())
        return plain(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)

    plain, model.attention = model.attention, spy
    generate(model, [0, 1, 2], order=torch.arange(LENGTH), guidance=guidance)
    assert rows[:: TINY.depth] == [6] * guided + [3] * (LENGTH - guided)
    assert keys[:: TINY.depth] == list(range(1, LENGTH + 1))
    assert len(memory) == 1, "the cache is allocated once"


def test_what_it_does_not_have_is_refused_by_name():
    model, family = lively(), LlamaARFamily(hidden_size=32, depth=1, num_heads=2)
    with pytest.raises(UserError, match=r"no int8 weights: .*sample\.precision"):
        model.prepare(int8=True)
    with pytest.raises(UserError, match=r"no float8 cache: remove sample\.kv_cache"):
        model.prepare(float8_cache=True)
    with pytest.raises(CapabilityError, match="compiled=True"):
        model.prepare(compiled=True)
    with pytest.raises(UserError, match="positional tables to merge"):
        model.merge_positions(torch.arange(LENGTH))
    with pytest.raises(CapabilityError, match=r"'llama_ar' does not support sample\.precision = 'int8'"):
        family.check_sampling("int8", "same")
    with pytest.raises(CapabilityError, match=r"'llama_ar'.*sample\.kv_cache = 'float8'.*'same'"):
        family.check_sampling("bfloat16", "float8")
    family.check_sampling("bfloat16", "same")
