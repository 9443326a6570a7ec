"""train: tokens to a trained model, with checkpoints."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Annotated, Any, final

import numpy as np

from rarkit.attention.base import AttentionBackend
from rarkit.cache.checkpoints import checkpoint_step, latest_checkpoint, write_checkpoint
from rarkit.cache.content_digest import digest
from rarkit.cache.output import StageOutput
from rarkit.cache.record import ABSENT
from rarkit.cache.row_reader import RowReader
from rarkit.cache.run_folders import MODEL_FILE
from rarkit.cache.store import output_at
from rarkit.engine.settings import TrainSettings
from rarkit.errors import DatasetError, IncompleteError, RecipeError, StoreError
from rarkit.files.system_errors import system_error
from rarkit.models.base import ModelFamily
from rarkit.models.config import ModelConfig
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.randomness import derived_seed
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.kept_memory import kept_memory
from rarkit.runtime.signals import HeldSignals
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.base import Stage, View, Work

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel
    from rarkit.training.loop import StepRecord, Trainer

TOKENS, LABELS = "train_tokens", "train_labels"
LOG = "log_"
"""Prefix of the arrays that hold the training log."""


@final
class TrainView(View):
    """What ``train`` reads."""

    seed: int
    train: TrainSettings
    scan_order: ScanOrder
    grid: Annotated[Grid, NotInFingerprint()]
    """Height and width of the token grid; the number of cells is in the fingerprint through ``config``."""
    permutation_schedule: PermutationSchedule
    attention: AttentionBackend
    model: ModelFamily
    config: ModelConfig
    imported_tokens: str | None = None
    """Digest of the tokens that ``train.tokens`` names."""


@final
class Train(Stage[TrainView]):
    """Tokens → ``model.safetensors`` (with the released tensor names) and the training log.

    The record holds ``parameters``, and ``precision`` and ``device``: what ``train.precision = "auto"`` stood for, and where.
    """

    name = "train"
    version = 3

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        if recipe.train is None:
            return None
        return ("tokenize",) if recipe.train.tokens is None else ()

    def view(self, experiment: Experiment) -> TrainView | None:
        recipe = experiment.recipe
        if recipe.train is None:
            return None
        tokens = None if recipe.train.tokens is None else imported(recipe.train.tokens, experiment)
        return TrainView(
            seed=experiment.train_seed,
            # The view's own seed stands for it.
            train=recipe.train.model_copy(update={"seed": None}),
            scan_order=recipe.scan_order,
            grid=experiment.grid,
            permutation_schedule=experiment.schedule,
            attention=recipe.attention,
            model=recipe.model,
            config=experiment.config,
            imported_tokens=None if tokens is None else digest(tokens),
        )

    def reads(self, view: TrainView) -> tuple[StageOutput, ...]:
        return () if view.train.tokens is None else (output_at(view.train.tokens, "tokenize"),)

    def left_off(self, view: TrainView, output: StageOutput) -> str | None:
        step = checkpoint_step(output)
        return None if step is None else f"step {step:,} of {view.train.steps:,}"

    def run(self, work: Work[TrainView]) -> None:
        from rarkit.training.loop import StepRecord, Trainer, as_columns

        view, output, settings = work.view, work.output, work.view.train
        tokens = work.inputs["tokenize"] if settings.tokens is None else output_at(settings.tokens, "tokenize")
        model = view.model.create(view.config, view.attention.build(), derived_seed(view.seed, "weights"))
        trainer = Trainer(
            model,
            RowReader(tokens, TOKENS),
            RowReader(tokens, LABELS),
            settings,
            seed=view.seed,
            scan_order_L=view.scan_order.order(*view.grid),
            schedule=view.permutation_schedule,
            device=work.device,
        )
        records: list[StepRecord] = []
        state = latest_checkpoint(output)
        if state is not None:
            try:
                records = [StepRecord(**record) for record in state.pop("log")]
                trainer.restore(state)
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                if (told := system_error(error)) is not None:
                    raise told from error
                # Its seal tells that it is whole, not who wrote it.
                raise IncompleteError(f"the checkpoint of {output} is of another training. {output.cure}") from error
            for record in records:
                work.log(dataclasses.asdict(record))
            work.reporter.say(f"train: resuming from the checkpoint at step {trainer.step:,}")
        trainer.check_attention()
        work.reporter.say(f"train: in {trainer.precision} on {work.device}")
        # Held back to the end, because there is no checkpoint of the last step.
        with HeldSignals() as held:
            with kept_memory(work.device):
                _train(work, trainer, records, held)
            for name, values in as_columns(records).items():
                output.write_array(LOG + name, values)
            output.write_file(MODEL_FILE, model_bytes(model))
            parameters = sum(weight.numel() for weight in model.parameters())
            output.finish([MODEL_FILE], parameters=parameters, precision=trainer.precision, device=work.device)
            for name in output.file_names():
                if name != MODEL_FILE:
                    output.remove_file(name)


def _train(work: Work[TrainView], trainer: Trainer, records: list[StepRecord], held: HeldSignals) -> None:
    """Trains to the last step, with checkpoints when they are due and when a signal stops the training."""
    settings, saved, since = work.view.train, trainer.step, time.monotonic()
    with work.reporter.task("train", settings.steps, "steps", trainer.step) as advance:
        while trainer.step < settings.steps:
            record = trainer.advance()
            records.append(record)
            work.log(dataclasses.asdict(record))
            advance(1, f"loss {record.loss:.3f}, r {record.random_ratio:.2f}")
            stopped = held.arrived is not None
            due = trainer.step % settings.checkpoint_every == 0 or time.monotonic() - since >= 60 * settings.checkpoint_minutes
            if (due or stopped) and saved < trainer.step < settings.steps:
                log = [dataclasses.asdict(record) for record in records]
                write_checkpoint(work.output, {**trainer.state(), "log": log}, trainer.step)
                saved, since = trainer.step, time.monotonic()
            if stopped and trainer.step < settings.steps:
                held.deliver(
                    f"Training stands at step {trainer.step:,} of {settings.steps:,}, in a checkpoint: the same command goes on "
                    "from there."
                )


def imported(place: str, experiment: Experiment) -> StageOutput:
    """The tokens that ``train.tokens`` names.

    Raises:
        DatasetError: they are missing or damaged.
        RecipeError: their grid or codebook size differs from that of the recipe's tokenizer, or the dataset lacks some of their
            classes.
    """
    setting, cure = f"train.tokens = {place!r}", "Create a token store with rarkit tokens import, and name that."
    try:
        output = output_at(place, "tokenize")
        defect = output.defect() if output.exists() else ABSENT
    except StoreError as error:
        raise DatasetError(f"{setting}: {error} {cure}") from error
    if defect is not None:
        raise DatasetError(f"{setting}: {defect}. {cure}")
    record, grid, size = output.begun(), experiment.grid, experiment.codebook_size
    codes = record.identity.get("codebook_size", size)
    if record.grid != grid or codes != size:
        raise RecipeError(
            f"{setting} has grids of {_shown(record.grid)} tokens from a codebook of {codes}, but the recipe's tokenizer gives "
            f"grids of {_shown(grid)} from a codebook of {size}. Use the tokenizer that the tokens were made with."
        )
    # One label too many is that of samples without a class, and would be trained as such without a word.
    classes = int(output.read_array(LABELS).max()) + 1 if record.classes is None else record.classes
    if classes > experiment.images.num_classes:
        raise RecipeError(
            f"{setting} has class ids up to {classes - 1}, but the classes of the recipe's dataset are 0 to "
            f"{experiment.images.num_classes - 1}. Name the dataset that the tokens were made from."
        )
    return output


def _shown(grid: tuple[int, int] | None) -> str:
    return "unknown numbers of" if grid is None else "{} × {}".format(*grid)


def model_bytes(model: ImageModel) -> bytes:
    """The model as a safetensors file, with its sizes in the metadata."""
    from safetensors.torch import save

    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    return bytes(save(tensors, model.metadata()))


def trained_model(
    output: StageOutput, family: ModelFamily, config: ModelConfig, attention: AttentionBackend, device: str
) -> ImageModel:
    """The model in the stage's output, in eval mode.

    Raises:
        IncompleteError: the model's file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        model = family.restore(config, attention.build(), load(output.read_file(MODEL_FILE)))
    except (SafetensorError, RuntimeError) as error:
        if (told := system_error(error)) is not None:
            raise told from error
        raise IncompleteError(f"the model in {output} is damaged: {error}. {output.cure}") from error
    return model.to(device).eval()


def training_log(output: StageOutput) -> dict[str, np.ndarray[Any, Any]]:
    """The training log by column: step, loss, accuracy, gradient_norm, learning_rate, random_ratio."""
    names = [name for name in output.begun().arrays if name.startswith(LOG)]
    return {name.removeprefix(LOG): output.read_array(name) for name in names}
