"""From somebody's images to the tables of a recipe that fits them, this machine and the minutes that there are."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, final

from rarkit.estimate.this_machine import assumed
from rarkit.images import ImageInfo
from rarkit.proposal.budget import COMPARING, STARTING, Budget
from rarkit.proposal.choice import Choice, as_table
from rarkit.proposal.data_choices import Size, dataset_choices, sizes, views
from rarkit.proposal.model_choices import (
    ENOUGH_STEPS,
    FEWEST_STEPS,
    MODELS,
    MOST_PASSES,
    SHARP_STEPS,
    WEIGHTS_A_TOKEN,
    ModelSize,
    batch_size,
    evaluate_choices,
    model_choices,
    sample_choices,
    samples_per_class,
    seconds_of_classifier,
    seconds_of_features,
    seconds_of_looks,
    train_choices,
)
from rarkit.proposal.survey import Survey
from rarkit.proposal.timing import Clock, Seconds, TokenizerClock
from rarkit.proposal.tokenizer_choices import (
    LEARNED,
    PLAIN,
    attempts,
    codes_of,
    is_trained,
    seconds_of_rounds,
    tokenizer_choices,
)
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.make import as_recipe
from rarkit.registry.loader import parts

SEED = 1
STEPS_OF_A_TRIAL = 100
SPARE = 0.7
"""Share of the time for training below which there is some for masks of dropout."""
LATE = 1.1
"""By how much a run may take longer than was asked for without a remark."""
Tables = dict[str, list[Choice]]


@final
@dataclass(frozen=True)
class Proposal:
    """The tables of a recipe, and how long its parts will take."""

    title: str
    tables: Tables
    size: Size
    seconds: dict[str, float]
    """About how long each part of a run takes here."""
    remarks: tuple[str, ...]
    """Sentences on what was not chosen, and why."""

    def as_recipe(self) -> dict[str, Any]:
        """The tables as TOML would have them; the place of the data is as it was given."""
        return {"title": self.title, "seed": SEED} | {name: as_table(choices) for name, choices in self.tables.items()}


@final
@dataclass(frozen=True)
class Proposer:
    """Chooses for images that were looked at."""

    survey: Survey
    budget: Budget
    clock: Clock
    tokenizer_clock: TokenizerClock

    def propose(self, title: str) -> Proposal:
        """The recipe.

        Raises:
            RarkitError: the images, or this machine, allow none.
        """
        size = self._size()
        tables = self._tables(size)
        tables["tokenizer"], learning = self._tokenizer(tables, size)
        images = self._images(tables)
        model, seconds = self._model(tables, size, images)
        steps, why = self._steps(seconds.step, images)
        per_class, is_spare = self._per_class(seconds.sampling), steps * seconds.step < SPARE * self.budget.for_training
        tables |= self._sized(size, model, images, steps, why, is_spare=is_spare)
        tables["sample"] = sample_choices(self.survey, per_class)
        evaluate, without = evaluate_choices(self.survey, size, self.budget)
        if evaluate is not None:
            tables["evaluate"] = evaluate
        times = {
            "start and read the images": STARTING + self.budget.reading,
            "learn the tokenizer": learning,
            "train": steps * seconds.step + self._looks(seconds.step, images),
            "sample": per_class / samples_per_class(self.survey) * seconds.sampling,
        }
        if evaluate is not None:
            features = seconds_of_features(self.survey, size, images, per_class * len(self.survey.class_names))
            times["evaluate"] = seconds_of_classifier(evaluate, size) + features + COMPARING
        remarks = (without, _too_long(sum(times.values()), self.budget.minutes))
        return Proposal(title, tables, size, times, tuple(filter(None, remarks)))

    def _size(self) -> Size:
        """The largest size at which there are enough steps for the smallest model, by assumed rates."""
        options = sizes(self.survey, self.budget)
        for size in reversed(options[1:]):
            tables = self._tables(size)
            enough = SHARP_STEPS if size.height == options[0].height else ENOUGH_STEPS
            wanted = min(enough, self._most_steps(self._images(tables)))
            if self._assumed(tables, MODELS[0], size).step * wanted <= self.budget.for_training:
                return size
        return options[0]

    def _tables(self, size: Size) -> Tables:
        dataset = dataset_choices(self.survey, size)
        tables = {"dataset": dataset}
        tables["tokenizer"] = tokenizer_choices(self.survey, size, self._images(tables), self.budget)
        return tables

    def _images(self, tables: Tables) -> int:
        """Training images, with all views of each."""
        return self.survey.images["train"] * views(tables["dataset"])

    def _tokenizer(self, tables: Tables, size: Size) -> tuple[list[Choice], float]:
        """The tokenizer's table with its steps, and how long it takes to learn."""
        images, experiment = self._images(tables), self._experiment(tables, MODELS[0], size)
        chosen, a_step, left = tables["tokenizer"], 0.0, 0.0
        for chosen, enough in attempts(self.survey, size, images, self.budget):
            starting = seconds_of_rounds(chosen, images * size.tokens, size.patch**2 * self.survey.channels)
            if not is_trained(chosen):
                return chosen, starting
            table, left = as_table(chosen), self.budget.for_tokenizer - starting
            a_step = self.tokenizer_clock(str(table.pop("name")), table, experiment)
            if left / a_step >= enough:
                break
        steps = max(FEWEST_STEPS, int(left / a_step))
        step = Choice("steps", steps, f"at {1000 * a_step:,.0f} ms a step, measured here")
        return [*chosen, step], starting + steps * a_step

    def _model(self, tables: Tables, size: Size, images: int) -> tuple[ModelSize, Seconds]:
        """The largest model that the images can teach and that has steps enough, first by assumed rates, then measured."""
        tokens = images * size.tokens
        taught = [model for model in MODELS[1:] if model.weights <= WEIGHTS_A_TOKEN * tokens]
        wanted = min(ENOUGH_STEPS, self._most_steps(images))
        for model in reversed(taught):
            if self._assumed(tables, model, size).step * wanted > self.budget.for_training:
                continue
            seconds = self.clock(self._experiment(tables, model, size))
            if seconds.step * wanted <= self.budget.for_training:
                return model, seconds
        return MODELS[0], self.clock(self._experiment(tables, MODELS[0], size))

    def _most_steps(self, images: int) -> int:
        return max(FEWEST_STEPS, MOST_PASSES * images // batch_size(images, self.budget))

    def _steps(self, a_step: float, images: int) -> tuple[int, str]:
        """The number of steps, and why."""
        affordable = int((self.budget.for_training - self._looks(a_step, images)) / a_step)
        most = self._most_steps(images)
        rate = f"at {1000 * a_step:,.0f} ms a step, measured here"
        if affordable >= most:
            return most, f"{rate}; more would overfit"
        return max(FEWEST_STEPS, affordable), rate

    def _looks(self, a_step: float, images: int) -> float:
        """Seconds in which held-out images are measured during the training."""
        return seconds_of_looks(self.survey, a_step, batch_size(images, self.budget))

    def _per_class(self, seconds: float) -> int:
        """Samples of a class, fewer where all that were wanted take ``seconds`` that are not there."""
        wanted = samples_per_class(self.survey)
        return max(1, min(wanted, int(wanted * self.budget.for_sampling / seconds) if seconds else wanted))

    def _sized(self, size: Size, model: ModelSize, images: int, steps: int, why: str, *, is_spare: bool) -> Tables:
        schedule = [
            Choice("name", "linear", "random orders become fewer until half of the training"),
            Choice("start", 0.25, "share of the training at which they begin to; a short one needs the final order longer"),
            Choice("end", 0.5, "the share of training after which all orders are the final one"),
        ]
        return {
            "permutation_schedule": schedule,
            "model": model_choices(model, images, size, is_spare=is_spare),
            "train": train_choices(model, steps, images, self.survey, self.budget, why),
        }

    def _assumed(self, tables: Tables, model: ModelSize, size: Size) -> Seconds:
        experiment = self._experiment(tables, model, size)
        assert experiment.recipe.train is not None
        flops = experiment.costs.step_flops(experiment.recipe.train.batch_size, checkpointing=0)
        return Seconds(assumed(experiment, flops, None).train_seconds or 0.0, 0.0)

    def _experiment(self, tables: Tables, model: ModelSize, size: Size) -> Experiment:
        """A recipe with this model, to be timed."""
        sized = tables | self._sized(size, model, self._images(tables), STEPS_OF_A_TRIAL, "", is_spare=False)
        sized["sample"] = sample_choices(self.survey, samples_per_class(self.survey))
        of_tables = {name: as_table(choices) for name, choices in sized.items()}
        # Which takes no time to make, and has the same grid and codes.
        of_tables["tokenizer"] = {"name": PLAIN, "patch": size.patch, "codes": codes_of(tables["tokenizer"])}
        recipe = as_recipe({"seed": SEED} | of_tables)
        images = ImageInfo(size.height, size.width, self.survey.channels, self.survey.class_names)
        return resolve(recipe, images, ("train",))


def _too_long(seconds: float, minutes: float) -> str:
    """What to say where a run takes longer than was asked for; nothing where it does not."""
    if seconds <= LATE * 60 * minutes:
        return ""
    least, taken = ceil(seconds / 60), f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"
    asked = "minute that was" if minutes == 1 else f"{minutes:g} minutes that were"
    return (
        f"A run takes about {taken}, longer than the {asked} asked for: --minutes {least} is about the least "
        "for these images on this machine."
    )


def has_learned_tokenizer() -> bool:
    """Whether the plugin rarkit-vq is installed."""
    return LEARNED in parts().tokenizers
