"""How far reconstructions are from the images themselves, in the features of the evaluation."""

from __future__ import annotations

from typing import final

from rarkit.evaluation.frechet import Gaussian, frechet_between, gaussian
from rarkit.evaluation.metric import RECONSTRUCTIONS, TEST_IMAGES, Evaluation, Metric
from rarkit.evaluation.record import MetricRecord
from rarkit.features.base import FeatureExtractor


@final
class ReconstructionDistance(Metric):
    """``reconstruction_frechet_distance``, or ``rfid``, of the held-out images that are yardsticks."""

    name = "reconstruction_distance"

    def measure(self, evaluation: Evaluation) -> list[MetricRecord]:
        sets = [evaluation.yardsticks.get(name) for name in (TEST_IMAGES, RECONSTRUCTIONS)]
        images, decoded = sets
        if images is None or decoded is None:
            return []
        count = f"{len(images['features']):,} held-out images"
        return [distance(gaussian(images["features"]), gaussian(decoded["features"]), evaluation.extractor, count)]


def distance(images: Gaussian, decoded: Gaussian, extractor: FeatureExtractor, which: str) -> MetricRecord:
    """The Fréchet distance between some images (``which``, for the explanation) and what the tokenizer leaves of them."""
    is_fid = extractor.distance_names()["features"] == "fid"
    return MetricRecord(
        "rfid" if is_fid else "reconstruction_frechet_distance",
        frechet_between(images, decoded),
        better="lower",
        explanation=f"Tokenizer alone: Fréchet distance between {which} and their reconstructions, in the features of "
        f"{extractor.name!r}.",
    )
