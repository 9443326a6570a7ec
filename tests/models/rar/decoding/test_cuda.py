"""Decoding on a GPU: CUDA graphs, flash-decoding, float8 cache, and no waiting. Skipped where there is no CUDA device."""

from __future__ import annotations

import pytest
import torch

from rarkit.errors import WeightsError
from rarkit.models import RARConfig
from rarkit.models.rar.decoding import cuda_graphs
from rarkit.models.rar.decoding.cuda_attention import FlashReads, MaskedReads, fixed_reads_for, varlen_attention
from rarkit.sampling import Constant, Interval, PlainDecoder, generate
from tests.models.rar.small import lively

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIZES = RARConfig(hidden_size=64, depth=3, num_heads=4, mlp_hidden_size=128, seq_len=80, codebook_size=50, num_classes=10)
GUIDANCE = [Constant(), Constant(scale=2.0), Interval(scale=3.0, end=0.5)]
CASES = {
    "float32": (torch.float32, {}, 1e-4, MaskedReads),
    "bfloat16": (torch.bfloat16, {}, 0.03, FlashReads),
    "float8 cache": (torch.bfloat16, {"float8_cache": True}, 0.1, MaskedReads),
}
"""Type of the model, what ``prepare`` is told, the largest error of a logit against the largest logit, what reads the cache."""


@pytest.fixture(autouse=True)
def _exact_products():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("guidance", GUIDANCE)
def test_captured_steps_equal_plain(monkeypatch, case, guidance):
    """Four batches after each other: eager, captured, replayed."""
    dtype, asked, tolerance, reads = CASES[case]
    monkeypatch.setattr(cuda_graphs, "BUCKET", 32)
    exact = lively(SIZES, scale=0.05).cuda()
    prepared = lively(SIZES, scale=0.05).to("cuda", dtype).prepare(**asked)
    has_lengths = "seqused_k" in (getattr(varlen_attention(), "__kwdefaults__", None) or {})
    assert fixed_reads_for(prepared.weights) is (reads if has_lengths else MaskedReads)
    scales = [guidance.scale_at(step, SIZES.seq_len) for step in range(SIZES.seq_len)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        order_L = torch.randperm(SIZES.seq_len, generator=generator).cuda()
        labels_B = torch.randint(SIZES.num_classes, (3,), generator=generator).cuda()
        tokens_BL = torch.randint(SIZES.codebook_size, (3, SIZES.seq_len), generator=generator).cuda()
        with torch.inference_mode():
            fast, plain = prepared.decoder(labels_B, order_L, scales), PlainDecoder(exact, labels_B, order_L, scales)
            previous = [None, *tokens_BL[:, order_L].unbind(1)[:-1]]
            for step, tokens_B in enumerate(previous):
                expected = plain.logits(step, tokens_B)
                bound = tolerance * max(1.0, abs(scales[step])) * float(expected.abs().max())
                assert float((fast.logits(step, tokens_B) - expected).abs().max()) <= bound


def test_logits_that_are_nan_are_an_error_when_all_tokens_are_drawn():
    model = lively(SIZES, scale=0.05).cuda()
    with torch.no_grad():
        next(model.blocks.parameters())[0] = torch.nan
    steps = []
    with pytest.raises(WeightsError, match="are NaN or infinite"):
        generate(model, [1, 2, 3], order=torch.arange(SIZES.seq_len), on_step=lambda step, _: steps.append(step))
    assert len(steps) == SIZES.seq_len


def test_no_step_waits_for_the_gpu():
    prepared = lively(SIZES, scale=0.05).to("cuda", torch.bfloat16).prepare()
    asked = {"order": torch.arange(SIZES.seq_len), "guidance": Constant(scale=2.0)}
    for _ in range(2):
        tokens_BL = generate(prepared, [1, 2, 3], seed=5, **asked)

    def watch(step, raster_BL):
        # Before the first step labels and noise go to the GPU, and after the last the sums of probabilities come back.
        torch.cuda.set_sync_debug_mode("default" if step == SIZES.seq_len - 1 else "error")

    try:
        again_BL = generate(prepared, [1, 2, 3], seed=5, on_step=watch, **asked)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again_BL, tokens_BL)
