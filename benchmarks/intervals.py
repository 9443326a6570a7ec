"""How often the interval of each metric holds what it should, on made-up features, class scores and likelihoods.

    python benchmarks/intervals.py [--repeats 150] [--resamplings 40]

Real images stay, as in an evaluation, and samples are drawn again and again: as many, of the same classes. An interval should hold
the number's mean over these draws (at this number of samples, so a bias from their number is no concern of it) nine times in ten.
Where a metric leaves the interval out for some draws, the share of draws that have one stands beside it.
Every metric with an interval is measured as the stage ``evaluate`` measures it. Writes benchmarks/results/intervals.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rarkit.evaluation.metric import Evaluation, TokenizedData, TokenSet
from rarkit.evaluation.metrics import METRICS
from rarkit.features.classifier import Classifier
from rarkit.features.inception import Inception

RESULTS = Path(__file__).parent / "results"
REAL_PER_CLASS = 100
HELD_OUT = 80
WITHOUT = ("precision_recall", "reconstruction", "codebook_use")
"""Metrics without intervals."""


@dataclass(frozen=True)
class MadeUp:
    """Classes are normal distributions with means of their own. Samples are drawn from them, scaled and moved."""

    name: str
    classes: int
    per_class: int
    features: int
    spread: float = 1.0
    """Of samples within a class; 1 is that of real images."""
    moved: float = 0.0
    """How far samples lie from where real images do, in every feature."""
    separation: float = 0.5
    """Standard deviation of the classes' means."""
    outliers: float = 0.0
    """The share of samples that have the spread of real images."""

    def images(self, seed: int, per_class: int, *, real: bool = False) -> dict[str, np.ndarray]:
        """Features, class scores by distance from the means, and labels, class by class."""
        means = np.random.default_rng(0).normal(size=(self.classes, self.features)) * self.separation
        labels = np.repeat(np.arange(self.classes), per_class)
        noise = np.random.default_rng((1, seed)).normal(size=(len(labels), self.features)) * np.linspace(1.5, 0.5, self.features)
        usual = np.random.default_rng((3, seed)).random((len(labels), 1)) < self.outliers
        features = means[labels] + (noise if real else noise * np.where(usual, 1.0, self.spread) + self.moved)
        logits = -((features[:, None] - means) ** 2).sum(-1) / 4
        return {"features": features.astype(np.float32), "logits": logits.astype(np.float32), "labels": labels}

    def evaluation(self, seed: int, resamplings: int, *, own_classes: bool = True) -> Evaluation:
        """Other samples for every seed; ``own_classes`` decides between class agreement and inception score."""
        nats = np.random.default_rng((2, seed)).gamma(4.0, size=HELD_OUT)
        tokens = TokenSet(np.zeros((HELD_OUT, 1), np.int64), np.zeros(HELD_OUT, np.int64))
        black = np.zeros((1, 2, 2, 1), np.uint8)
        return Evaluation(
            samples=self.images(seed, self.per_class),
            real=self.images(-1 % 2**32, REAL_PER_CLASS, real=True),
            yardsticks={},
            extractor=Classifier() if own_classes else Inception(weights=None),
            tokenized=TokenizedData(tokens, tokens, "test", 2, black, black, nats_per_token=lambda _: nats),
            seed=seed,
            resamplings=resamplings,
        )

    def numbers(self, seed: int, resamplings: int) -> dict[str, tuple[float, float | None, float | None]]:
        """By metric: its value and both ends of its interval."""
        own, others = (self.evaluation(seed, resamplings, own_classes=own_classes) for own_classes in (True, False))
        records = [
            record
            for metric in METRICS
            if metric.name not in WITHOUT
            for record in metric.measure(others if metric.name == "inception_score" else own)
        ]
        return {record.name: (record.value, record.low, record.high) for record in records}


CASES = (
    MadeUp("as the digits recipe", 10, 36, 32, spread=0.9, moved=0.1),
    MadeUp("samples like real images", 10, 36, 32),
    MadeUp("far off", 10, 36, 32, spread=0.6, moved=0.5),
    MadeUp("fewer samples than features", 5, 8, 64, spread=0.9, separation=0.3),
    MadeUp("two features, two classes", 2, 50, 2),
    MadeUp("many classes, few samples of each", 40, 4, 16, spread=0.9, moved=0.1),
    MadeUp("classes that overlap", 10, 20, 16, separation=0.3),
    MadeUp("most classified with certainty", 10, 36, 32, spread=0.9, separation=0.9),
    MadeUp("nearly all classified with certainty", 10, 36, 32, spread=0.9, separation=1.3),
    MadeUp("all classified with certainty", 10, 36, 32, spread=0.9, separation=3.0),
    MadeUp("samples of a class all alike but for a few", 10, 36, 16, spread=0.05, outliers=0.003),
    MadeUp("samples of a class alike but for some", 10, 36, 16, spread=0.05, outliers=0.05),
)


def coverage(case: MadeUp, repeats: int, resamplings: int) -> list[dict[str, object]]:
    """A row for each metric that has an interval: how often it holds the mean over more samples, and its own value."""
    seeds = range(repeats)
    drawn = [case.numbers(seed, resamplings) for seed in seeds]
    more = [case.numbers(seed, 0) for seed in range(repeats, 4 * repeats)]
    rows = []
    for name in drawn[0]:
        truth = float(np.mean([numbers[name][0] for numbers in (*drawn, *more)]))
        with_interval = [numbers[name] for numbers in drawn if numbers[name][1] is not None]
        if not with_interval:
            continue
        values, low, high = np.array(with_interval, dtype=float).T
        rows.append(
            {
                "case": asdict(case),
                "metric": name,
                "mean": truth,
                "deviation": float(np.std([numbers[name][0] for numbers in drawn], ddof=1)),
                "have_one": len(values) / repeats,
                "misses": float((~((low <= truth) & (truth <= high))).sum()) / repeats,
                "width": float((high - low).mean()),
                "holds_the_mean": float(((low <= truth) & (truth <= high)).mean()),
                "holds_its_value": float(((low <= values) & (values <= high)).mean()),
            }
        )
    return rows


def main() -> None:
    from machine import machine

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--repeats", type=int, default=150)
    arguments.add_argument("--resamplings", type=int, default=40)
    options = arguments.parse_args()
    rows = []
    for case in CASES:
        for row in coverage(case, options.repeats, options.resamplings):
            rows.append(row)
            held = f"{row['holds_the_mean']:5.1%} of intervals hold the mean, {row['have_one']:4.0%} have one"
            print(f"{case.name:36} {row['metric']:20} {held}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "intervals.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
