"""evaluate: numbers for the samples, each beside its yardsticks.

Shape letters: N images, F features, C classes, L tokens of an image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.randomness import derived_seed
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid, read_state
from rarkit.stages.reference import features_of, held_out_split
from rarkit.stages.sample import sampling_model

METRICS_FILE = "metrics.json"
HELD_OUT_IMAGES = 10_000
LABELS = {"test": "real test images", "reconstructions": "reconstructions", "uniform": "uniform tokens"}


@final
class Evaluate(Stage):
    """Samples and reference → ``metrics.json``, and the samples' ``features`` and ``logits``."""

    name = "evaluate"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.evaluate is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        return (*(("train",) if recipe.train is not None else ()), "tokenize", "sample", "reference")

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.evaluate is not None
        return {"seed": recipe.seed, "evaluate": recipe.evaluate.identity()}

    def run(self, work: Work) -> None:
        recipe, output = work.recipe, work.output
        assert recipe.evaluate is not None
        extractor = recipe.evaluate.features.build(read_state(work.inputs["reference"]), work.device)
        samples = work.inputs["sample"]
        layout = samples.record()["arrays"]["images"]
        blocks = (samples.read_array("images", *samples.block_rows("images", block)) for block in range(layout["blocks"]))
        with work.reporter.task("evaluate", layout["shape"][0], "images") as advance:
            seen = features_of(extractor, blocks, advance)
        for name, values in seen.items():
            output.write_array(name, values, rows=4096)
        metrics = _feature_metrics(recipe, seen, samples, work.inputs["reference"])
        metrics.append(_bits_per_token(work))
        data = json.dumps({"metrics": metrics, "samples": layout["shape"][0]}, indent=2).encode()
        output.write_file(METRICS_FILE, data)
        output.finish([METRICS_FILE])


def _feature_metrics(
    recipe: Recipe, seen: dict[str, NDArray[np.float32]], samples: StageOutput, reference: StageOutput
) -> list[dict[str, Any]]:
    from rarkit.evaluation import agreement, diversity, frechet_distance, precision_recall

    assert recipe.evaluate is not None
    evaluate, seed = recipe.evaluate, derived_seed(recipe.seed, "bootstrap")
    sets = [name for name in reference.record()["sets"] if name != "train"]
    real_NF = reference.read_array("train_features")
    features = {name: reference.read_array(f"{name}_features") for name in sets}
    where = f"in the features of {evaluate.features.name!r}, against the training images"

    def measured(
        name: str, metric: Callable[..., float], own: tuple[Any, ...], others: dict[str, tuple[Any, ...]], **about: str
    ) -> dict[str, Any]:
        return {
            "name": name,
            "value": metric(*own),
            **_interval(metric, own, evaluate.bootstrap, seed),
            **about,
            "yardsticks": {LABELS[other]: metric(*arrays) for other, arrays in others.items()},
        }

    metrics = [
        measured(
            evaluate.features.distance_name,
            lambda features_NF: frechet_distance(real_NF, features_NF),
            (seen["features"],),
            {name: (features[name],) for name in sets},
            unit="",
            better="lower",
            explanation=f"Distance between two Gaussians fitted to samples and real images, {where}.",
        )
    ]
    if "logits" in seen:
        labels_M = samples.read_array("labels").astype(np.int64)
        labels = {name: reference.read_array(f"{name}_labels").astype(np.int64) for name in sets}
        metrics.append(
            measured(
                "class_agreement",
                agreement,
                (seen["logits"], labels_M),
                {name: (reference.read_array(f"{name}_logits"), labels[name]) for name in sets},
                unit="",
                better="higher",
                explanation="How often the classifier sees the class that was asked for.",
            )
        )
        metrics.append(
            measured(
                "diversity",
                lambda features_NF, labels_N: diversity(features_NF, labels_N),
                (seen["features"], labels_M),
                {name: (features[name], labels[name]) for name in sets},
                unit="",
                better="",
                explanation="Mean distance between two images of one class; near that of real images is best.",
            )
        )
    for index, name in enumerate(("precision", "recall")):
        own = precision_recall(real_NF, seen["features"])[index]
        yardsticks = {LABELS[other]: precision_recall(real_NF, features[other])[index] for other in sets}
        what = "Share of samples among the real images" if index == 0 else "Share of real images among the samples"
        explanation = f"{what} (nearest neighbours, k = 3), {where}."
        metrics.append({"name": name, "value": own, "low": None, "high": None, "unit": "", "better": "higher"})
        metrics[-1] |= {"explanation": explanation, "yardsticks": yardsticks}
    return metrics


def _interval(metric: Callable[..., float], arrays: tuple[Any, ...], resamplings: int, seed: int) -> dict[str, float | None]:
    """The 5 % and 95 % points of the metric over resampled images."""
    if resamplings == 0:
        return {"low": None, "high": None}
    from rarkit.evaluation import bootstrap

    low, high = bootstrap(metric, arrays, resamplings=resamplings, seed=seed)
    return {"low": low, "high": high}


def _bits_per_token(work: Work) -> dict[str, Any]:
    """How many bits the model needs for a token of an image that it has not seen."""
    from rarkit.training.likelihood import nats_per_image

    recipe, tokens = work.recipe, work.inputs["tokenize"]
    assert recipe.evaluate is not None
    order_L = recipe.scan_order.order(*model_grid(recipe))
    model = sampling_model(work)
    _, split = held_out_split(recipe)

    def bits(split: str) -> NDArray[np.float64]:
        count = min(tokens.record()["arrays"][f"{split}_tokens"]["shape"][0], HELD_OUT_IMAGES)
        tokens_NL = tokens.read_array(f"{split}_tokens", 0, count).astype(np.int64)
        labels_N = tokens.read_array(f"{split}_labels", 0, count).astype(np.int64)
        nats_N = nats_per_image(model, tokens_NL, labels_N, order_L, batch_size=256, device=work.device)
        return nats_N / math.log(2)

    held_out_N = bits(split)
    codebook_size = recipe.tokenizer.codebook_size()
    seed = derived_seed(recipe.seed, "bootstrap")
    return {
        "name": "bits_per_token",
        "value": float(held_out_N.mean()),
        **_interval(lambda bits_N: float(bits_N.mean()), (held_out_N,), recipe.evaluate.bootstrap, seed),
        "unit": "bits",
        "better": "lower",
        "explanation": "Negative log-likelihood of the tokens of held-out images along the scan order."
        if split == "test"
        else "Negative log-likelihood of the training images' tokens: this dataset has no held-out split.",
        "yardsticks": {
            "training images": float(bits("train").mean()),
            "token frequencies": _unigram_bits(tokens, split, codebook_size),
            "uniform tokens": math.log2(codebook_size),
        },
    }


def _unigram_bits(tokens: StageOutput, split: str, codebook_size: int) -> float:
    """Bits per token of a model that knows how often each code occurs (Laplace's rule), and nothing else."""
    train = tokens.read_array("train_tokens", 0, HELD_OUT_IMAGES).ravel().astype(np.int64)
    counts = np.bincount(train, minlength=codebook_size) + 1.0
    held_out = tokens.read_array(f"{split}_tokens", 0, HELD_OUT_IMAGES).ravel().astype(np.int64)
    return float(-np.log2(counts / counts.sum())[held_out].mean())
