"""What evaluation measures of the model and of the tokenizer alone.

Shape letters: N images, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.evaluation import codebook_use, psnr, ssim
from rarkit.stages.base import Work, model_grid
from rarkit.stages.records import measured, record
from rarkit.stages.reference import held_out_split
from rarkit.stages.sample import sampling_model
from rarkit.training.likelihood import nats_per_image

HELD_OUT_IMAGES = 10_000


def bits_per_token(work: Work) -> dict[str, Any]:
    """How many bits the model needs for a token of an image that it has not seen."""
    recipe, tokens = work.recipe, work.inputs["tokenize"]
    order_L = recipe.scan_order.order(*model_grid(recipe))
    model = sampling_model(work)
    split = held_out_split(recipe)

    def bits(of: str) -> NDArray[np.float64]:
        tokens_NL, labels_N = (
            tokens.read_array(f"{of}_{what}", 0, HELD_OUT_IMAGES).astype(np.int64) for what in ("tokens", "labels")
        )
        nats_N = nats_per_image(model, tokens_NL, labels_N, order_L, batch_size=256, device=work.device)
        return nats_N / math.log(2)

    held_out = "held-out images" if split == "test" else "training images (this dataset has no held-out split)"
    codebook_size = recipe.tokenizer.codebook_size()
    found = measured(
        work,
        "bits_per_token",
        lambda bits_N: float(bits_N.mean()),
        (bits(split),),
        {"training images": (bits("train"),)},
        unit="bits",
        better="lower",
        explanation=f"Negative log-likelihood of the tokens of {held_out} along the scan order.",
    )
    found["yardsticks"] |= {
        "token frequencies": _unigram_bits(tokens, split, codebook_size),
        "uniform tokens": math.log2(codebook_size),
    }
    return found


def _unigram_bits(tokens: StageOutput, split: str, codebook_size: int) -> float:
    """Bits per token of a model that knows how often each code occurs (Laplace's rule), and nothing else."""
    train = tokens.read_array("train_tokens", 0, HELD_OUT_IMAGES).ravel().astype(np.int64)
    counts = np.bincount(train, minlength=codebook_size) + 1.0
    held_out = tokens.read_array(f"{split}_tokens", 0, HELD_OUT_IMAGES).ravel().astype(np.int64)
    return float(-np.log2(counts / counts.sum())[held_out].mean())


def reconstruction_metrics(work: Work) -> list[dict[str, Any]]:
    """What the tokenizer alone costs, which bounds what any model on its tokens can reach."""
    reference, tokens = work.inputs["reference"], work.inputs["tokenize"]
    originals, decoded = (reference.read_array(f"shown_{which}") for which in ("originals", "reconstructions"))
    decibels_N = psnr(originals, decoded)
    split, size = held_out_split(work.recipe), work.recipe.tokenizer.codebook_size()
    use = codebook_use(tokens.read_array(f"{split}_tokens", 0, HELD_OUT_IMAGES).astype(np.int64), size)
    about = f"Tokenizer alone, over {len(originals)} held-out images"
    lossless = bool(np.isinf(decibels_N).all())
    shown = (
        []
        if lossless
        else [
            record(
                "reconstruction_psnr",
                float(decibels_N[np.isfinite(decibels_N)].mean()),
                unit="dB",
                better="higher",
                explanation=f"{about}: peak signal-to-noise ratio of those that are not reproduced exactly.",
            )
        ]
    )
    return [
        *shown,
        record(
            "reconstruction_ssim",
            float(ssim(originals, decoded).mean()),
            better="higher",
            explanation=f"{about}: structural similarity.",
        ),
        record("codebook_use", use.share, explanation="Share of the codebook that held-out images use."),
    ]
