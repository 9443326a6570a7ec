"""The tables ``[model]``, ``[train]``, ``[sample]`` and ``[evaluate]``."""

from __future__ import annotations

from typing import NamedTuple, final

from rarkit.proposal.budget import Budget
from rarkit.proposal.choice import Choice, as_table
from rarkit.proposal.data_choices import FEW, Size
from rarkit.proposal.survey import Survey


@final
class ModelSize(NamedTuple):
    """The size of a transformer."""

    hidden_size: int
    depth: int
    num_heads: int

    @property
    def weights(self) -> int:
        """About how many it has: attention and MLP with 12 times the square of the width, and modulations with 6."""
        return 18 * self.hidden_size**2 * self.depth


MODELS = tuple(
    ModelSize(*numbers)
    for numbers in ((64, 4, 4), (96, 4, 4), (128, 6, 4), (192, 8, 6), (256, 10, 8), (384, 12, 8), (512, 16, 8), (768, 24, 16))
)
"""From that of recipes/digits.toml to the paper's RAR-B."""
WEIGHTS_A_TOKEN = 16
"""Weights for each token of the training images, beyond which a model overfits; 13 in recipes/digits.toml."""
MOST_PASSES = 20
"""Over the training images. Of 1,280 crops of photographs, a model learned 20 passes as well as 31 by its samples' Fréchet distance
(0.75 and 0.71), but needed 5.8 and 7.7 bits for a token of images that it had not seen."""
FEWEST_STEPS, ENOUGH_STEPS = 100, 1_000
"""Steps below which nothing is learned, and from which on another minute is better spent on a larger model."""
SHARP_STEPS = 500
"""Steps from which on four times as many tokens of an image are taken to be worth more than four times as many steps."""
SLOW_RATE_WIDTH = 64 * 4e-3
"""Width times learning rate, as in recipes/digits.toml."""
CLASSIFIER_STEP = 0.17
"""Assumed seconds of a step of the classifier of images of 32 × 32 on a core."""
BATCH_OF_CLASSIFIER = 128
MOST_COMPARED, YARDSTICKS = 50_000, 3
"""Images of a set whose features are computed, and the sets beside training images and samples."""
FEWEST_OF_CLASS = 10
"""Images of a class by which a classifier learns it."""
MOST_SAMPLES, FEWEST_SAMPLES = 360, 36
LOOKS = 5
"""At held-out images, while a model is trained."""
MEASURED, PASSES_OF_EACH = 256, 5
"""Held-out images of such a look, and how often a model reads each: in its scan order, and in random ones."""


def batch_size(images: int, budget: Budget) -> int:
    """Images of a step."""
    return 16 if images < 500 else 32 if images < FEW else 256 if budget.device == "cuda" and images > 10_000 else 64


def model_choices(model: ModelSize, images: int, size: Size, *, is_spare: bool) -> list[Choice]:
    """The whole table; ``is_spare``: whether there is more time than steps to take."""
    reason = "against overfitting"
    weights = f"{model.weights / 1e6:,.1f} million weights for {images * size.tokens:,} training tokens"
    return [
        Choice("hidden_size", model.hidden_size, f"about {weights}"),
        Choice("depth", model.depth, "blocks"),
        Choice("num_heads", model.num_heads, f"of {model.hidden_size // model.num_heads} channels"),
        Choice("dropout", 0.1, reason) if is_spare else Choice("dropout", 0.0, "drawing its masks would take a fifth of the time"),
        Choice("attention_dropout", 0.1, reason),
    ]


def train_choices(model: ModelSize, steps: int, images: int, survey: Survey, budget: Budget, why: str) -> list[Choice]:
    """The whole table, for so many steps on so many images with all their views."""
    batch = batch_size(images, budget)
    passes = steps * batch / images
    chosen = [
        Choice("steps", steps, f"{why}; {passes:,.1f} passes over {images:,} training images"),
        Choice("batch_size", batch, "images of a step"),
        Choice("learning_rate", float(f"{SLOW_RATE_WIDTH / model.hidden_size:.1g}"), "less for wider models"),
        Choice("warmup_steps", min(100, steps // 7), "from 0 to that rate"),
        Choice("weight_decay", 0.1, "against overfitting"),
    ]
    if survey.images["test"]:
        every = max(1, steps // LOOKS)
        chosen.append(Choice("evaluate_every", every, "steps between evaluations on held-out images, which show overfitting"))
    if budget.device == "cpu":
        chosen.append(Choice("precision", "float32", "models of this size gain nothing from bfloat16 on a processor"))
    return chosen


def sample_choices(survey: Survey, per_class: int) -> list[Choice]:
    """The whole table."""
    classes = len(survey.class_names)
    if classes > 1:
        guidance = {"name": "power_cosine", "scale": 1.5, "power": 1.0}
        guided = Choice("guidance", guidance, "pulls samples towards their class; more is clearer and more alike")
    else:
        guided = Choice("guidance", {"name": "constant", "scale": 1.0}, "none, because there is one class")
    return [
        Choice("per_class", per_class, f"{classes * per_class:,} images in all"),
        guided,
        Choice("temperature", 0.9, "below 1: fewer odd images, less variety"),
    ]


def samples_per_class(survey: Survey) -> int:
    """About as many samples as there are held-out images: distances compare at equal numbers only."""
    wanted = min(MOST_SAMPLES, max(FEWEST_SAMPLES, survey.images["test"]))
    return max(1, round(wanted / len(survey.class_names)))


def seconds_of_classifier(chosen: list[Choice], size: Size) -> float:
    """About how long the classifier of a table takes to learn."""
    return float(as_table(chosen)["features"]["steps"]) * _step_of_classifier(size)


def seconds_of_looks(survey: Survey, a_step: float, batch: int) -> float:
    """About how long it takes to measure held-out images while a model is trained, by the time of a step: a third is forward."""
    return LOOKS * PASSES_OF_EACH * min(MEASURED, survey.images["test"]) * a_step / (3 * batch)


def seconds_of_features(survey: Survey, size: Size, images: int, samples: int) -> float:
    """About how long it takes to compute the features of the training images, samples and yardsticks."""
    compared = min(images, MOST_COMPARED) + samples + YARDSTICKS * min(survey.images["test"], MOST_COMPARED)
    return compared * _step_of_classifier(size) / (3 * BATCH_OF_CLASSIFIER)


def _step_of_classifier(size: Size) -> float:
    return CLASSIFIER_STEP * size.height * size.width / 32**2


def evaluate_choices(survey: Survey, size: Size, budget: Budget) -> tuple[list[Choice] | None, str]:
    """The table, or None where there are no features to compare images in; and what to say about that."""
    if len(survey.class_names) < 2:
        return None, (
            "There is one class, so no classifier can be trained in whose features samples and images would be compared. With "
            'Inception\'s weights, [evaluate] with features = { name = "inception", weights = … } compares them.'
        )
    seen = [look.label for look in survey.sound]
    counts = [count for _, count in survey.classes] if survey.classes else [seen.count(label) for label in set(seen)]
    if sum(count >= FEWEST_OF_CLASS for count in counts) < 2:
        few = f"Fewer than two classes have {FEWEST_OF_CLASS} images or more"
        return None, f"{few}, so no classifier can be trained in whose features samples and images would be compared."
    steps = int(min(600, max(20, budget.for_features / _step_of_classifier(size))))
    features = {"name": "classifier", "steps": steps}
    return [Choice("features", features, "of a small network that learns to tell classes apart; distances in them are no FID")], ""
