"""What evaluation measures in features: how like real images the samples are.

Shape letters: N images, M samples, F features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.evaluation import (
    Gaussian,
    agreement,
    diversity,
    frechet_between,
    gaussian,
    gaussian_of,
    inception_score,
    precision_recall,
    taking_turns,
)
from rarkit.stages.base import Work
from rarkit.stages.records import Arrays, measured, record
from rarkit.stages.reference import COVARIANCE, LABELS, MEAN, REAL

NEIGHBOURS = 3
SETS = {"test": "real test images", "reconstructions": "reconstructions", "uniform": "uniform tokens"}
"""What the report calls the yardsticks."""


def feature_metrics(work: Work, seen: Mapping[str, NDArray[np.float32]]) -> list[dict[str, Any]]:
    """What the samples' ``features`` (M, F), ``spatial`` and ``logits`` (M, C) tell, and the same of every yardstick set."""
    recipe, samples, reference = work.recipe, work.inputs["sample"], work.inputs["reference"]
    assert recipe.evaluate is not None
    extractor = recipe.evaluate.features
    against = "the training images" if extractor.reference_batch() is None else "the reference batch"
    where = f"in the features of {extractor.name!r}, against {against}"
    sets = [name for name in reference.record()["sets"] if name != REAL]
    labels_M = samples.read_array("labels").astype(np.int64)

    def others(what: str) -> dict[str, Arrays]:
        return {SETS[name]: (reference.read_array(f"{name}_{what}"),) for name in sets}

    def labelled(what: str) -> dict[str, Arrays]:
        return {SETS[name]: (*others(what)[SETS[name]], reference.read_array(f"{name}_{LABELS}")) for name in sets}

    found = [
        measured(
            work,
            name,
            partial(_distance, _real_gaussian(reference, what)),
            (seen[what],),
            others(what),
            centred=True,
            better="lower",
            explanation=f"Fréchet distance between Gaussians fitted to samples and real images, {where}. "
            "Biased upwards by few images: compare sets of equal size.",
        )
        for what, name in extractor.distance_names().items()
        if what in seen
    ]
    if "logits" in seen and extractor.knows_classes:
        said = "How often the classifier sees the class that was asked for."
        asked = seen["logits"], labels_M
        found.append(measured(work, "class_agreement", agreement, asked, labelled("logits"), better="higher", explanation=said))
    if "logits" in seen and not extractor.knows_classes:
        said = "How sure the classifier is of each sample, and how many classes it sees in all; splits of 5,000, classes in turn."
        own = (seen["logits"][taking_turns(labels_M)],)
        beside = {name: (logits[taking_turns(labels)],) for name, (logits, labels) in labelled("logits").items()}
        found.append(measured(work, "inception_score", inception_score, own, beside, better="higher", explanation=said))
    return [*found, *_diversity(work, seen, labels_M, labelled, where), *_precision_and_recall(reference, seen, others, where)]


def _real_gaussian(reference: StageOutput, what: str) -> Gaussian:
    """Fitted to the real images, or given with them, of many more than these."""
    if f"{REAL}_{what}_{MEAN}" in reference.record()["arrays"]:
        return gaussian_of(*(reference.read_array(f"{REAL}_{what}_{part}") for part in (MEAN, COVARIANCE)))
    return gaussian(reference.read_array(f"{REAL}_{what}"))


def _distance(real: Gaussian, features_MF: NDArray[np.float32]) -> float:
    return frechet_between(real, gaussian(features_MF))


def _diversity(
    work: Work,
    seen: Mapping[str, NDArray[np.float32]],
    labels_M: NDArray[np.int64],
    labelled: Callable[[str], dict[str, Arrays]],
    where: str,
) -> list[dict[str, Any]]:
    reference = work.inputs["reference"]
    # The reference batch of a published protocol has no labels.
    if np.bincount(labels_M).max() < 2 or f"{REAL}_{LABELS}" not in reference.record()["arrays"]:
        return []
    real_NF, real_labels_N = (reference.read_array(f"{REAL}_{what}") for what in ("features", LABELS))
    return [
        measured(
            work,
            "diversity",
            partial(diversity, real_NF, real_labels_N),
            (seen["features"], labels_M),
            labelled("features"),
            explanation=f"How far images of one class lie apart, real ones at 1, {where}.",
        )
    ]


def _precision_and_recall(
    reference: StageOutput,
    seen: Mapping[str, NDArray[np.float32]],
    others: Callable[[str], dict[str, Arrays]],
    where: str,
) -> list[dict[str, Any]]:
    real_NF, sets = reference.read_array(f"{REAL}_features"), {"samples": (seen["features"],), **others("features")}
    if min(len(real_NF), *(len(features) for (features,) in sets.values())) <= NEIGHBOURS:
        return []
    pairs = {name: precision_recall(real_NF, features, NEIGHBOURS) for name, (features,) in sets.items()}
    own = pairs.pop("samples")
    says = {
        "precision": "Share of samples that lie among the real images",
        "recall": "Share of real images that lie among the samples",
    }
    return [
        record(
            name,
            getattr(own, name),
            better="higher",
            explanation=f"{said} ({NEIGHBOURS} nearest neighbours, as ADM's evaluator defines it), {where}.",
            yardsticks={other: getattr(pair, name) for other, pair in pairs.items()},
        )
        for name, said in says.items()
    ]
