"""The numbers of an evaluation as plain records: name, value, interval, unit, direction, explanation, yardsticks.

Shape letters: N images, M samples, F features, C classes, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.evaluation import agreement, bootstrap, codebook_use, diversity, frechet_distance, precision_recall, psnr, ssim
from rarkit.randomness import derived_seed
from rarkit.stages.base import Work, model_grid
from rarkit.stages.reference import held_out_split
from rarkit.stages.sample import sampling_model
from rarkit.training.likelihood import nats_per_image

Arrays = tuple[NDArray[Any], ...]
HELD_OUT_IMAGES = 10_000
NEIGHBOURS = 3
SETS = {"test": "real test images", "reconstructions": "reconstructions", "uniform": "uniform tokens"}


def feature_metrics(work: Work, seen: Mapping[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """What the samples' ``features`` (M, F) and ``logits`` (M, C) tell, and the same of every yardstick set."""
    recipe, samples, reference = work.recipe, work.inputs["sample"], work.inputs["reference"]
    assert recipe.evaluate is not None
    extractor = recipe.evaluate.features
    sets = [name for name in reference.record()["sets"] if name != "train"]
    features = {SETS[name]: (reference.read_array(f"{name}_features"),) for name in sets}
    labels = {SETS[name]: reference.read_array(f"{name}_labels").astype(np.int64) for name in sets}
    real_NF, real_labels_N = reference.read_array("train_features"), reference.read_array("train_labels")
    labels_M = samples.read_array("labels").astype(np.int64)
    where = f"in the features of {extractor.name!r}, against the training images"
    found = [
        _measured(
            work,
            extractor.distance_name,
            partial(frechet_distance, real_NF),
            (seen["features"],),
            features,
            centred=True,
            better="lower",
            explanation=f"Fréchet distance between Gaussians fitted to samples and real images, {where}. "
            "Biased upwards by few images: compare sets of equal size.",
        ),
    ]
    if "logits" in seen:
        logits = {SETS[name]: (reference.read_array(f"{name}_logits"), labels[SETS[name]]) for name in sets}
        agreed = _measured(
            work,
            "class_agreement",
            agreement,
            (seen["logits"], labels_M),
            logits,
            better="higher",
            explanation="How often the classifier sees the class that was asked for.",
        )
        found.append(agreed)
    if np.bincount(labels_M).max() > 1:
        spread = _measured(
            work,
            "diversity",
            partial(diversity, real_NF, real_labels_N),
            (seen["features"], labels_M),
            {name: (*arrays, labels[name]) for name, arrays in features.items()},
            explanation=f"How far images of one class lie apart, real ones at 1, {where}.",
        )
        found.append(spread)
    return found + _precision_and_recall(real_NF, seen["features"], features, where)


def _precision_and_recall(
    real_NF: NDArray[Any], features_MF: NDArray[Any], others: Mapping[str, Arrays], where: str
) -> list[dict[str, Any]]:
    if min(len(features_MF), *(len(arrays[0]) for arrays in others.values())) <= NEIGHBOURS:
        return []
    pairs = {name: precision_recall(real_NF, arrays[0], NEIGHBOURS) for name, arrays in others.items()}
    own = precision_recall(real_NF, features_MF, NEIGHBOURS)
    says = {
        "precision": "Share of samples that lie among the real images",
        "recall": "Share of real images that lie among the samples",
    }
    return [
        _record(
            name,
            getattr(own, name),
            better="higher",
            explanation=f"{said} ({NEIGHBOURS} nearest neighbours, as ADM's evaluator defines it), {where}.",
            yardsticks={other: getattr(pair, name) for other, pair in pairs.items()},
        )
        for name, said in says.items()
    ]


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
    record = _measured(
        work,
        "bits_per_token",
        lambda bits_N: float(bits_N.mean()),
        (bits(split),),
        {"training images": (bits("train"),)},
        unit="bits",
        better="lower",
        explanation=f"Negative log-likelihood of the tokens of {held_out} along the scan order.",
    )
    record["yardsticks"] |= {
        "token frequencies": _unigram_bits(tokens, split, codebook_size),
        "uniform tokens": math.log2(codebook_size),
    }
    return record


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
            _record(
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
        _record(
            "reconstruction_ssim",
            float(ssim(originals, decoded).mean()),
            better="higher",
            explanation=f"{about}: structural similarity.",
        ),
        _record("codebook_use", use.share, explanation="Share of the codebook that held-out images use."),
    ]


def _measured(
    work: Work,
    name: str,
    metric: Callable[..., float],
    own: Arrays,
    others: Mapping[str, Arrays],
    *,
    centred: bool = False,
    **about: str,
) -> dict[str, Any]:
    """A metric of the samples with its bootstrap interval (5 % to 95 %), and of each yardstick set."""
    assert work.recipe.evaluate is not None
    low = high = None
    if work.recipe.evaluate.bootstrap:
        seed = derived_seed(work.recipe.seed, "bootstrap")
        low, high = bootstrap(metric, own, seed=seed, resamplings=work.recipe.evaluate.bootstrap, centred=centred)
    yardsticks = {other: metric(*arrays) for other, arrays in others.items()}
    return _record(name, metric(*own), low, high, yardsticks=yardsticks, **about)


def _record(
    name: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    unit: str = "",
    better: str = "",
    explanation: str = "",
    yardsticks: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    return {
        "name": name,
        "value": float(value),
        "low": low,
        "high": high,
        "unit": unit,
        "better": better,
        "explanation": explanation,
        "yardsticks": dict(yardsticks or {}),
    }
