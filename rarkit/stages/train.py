"""train: tokens to a trained model, with checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, final

import numpy as np

from rarkit.attention.base import AttentionBackend
from rarkit.cache.content_digest import digest
from rarkit.cache.output import StageOutput
from rarkit.cache.record import ABSENT
from rarkit.cache.row_reader import RowReader
from rarkit.cache.run_folders import MODEL_FILE
from rarkit.cache.store import output_at
from rarkit.engine.checkpoint_seal import checkpoint_step, kept_checkpoints, seal_name
from rarkit.engine.settings import TrainSettings
from rarkit.engine.watching import Watcher
from rarkit.errors import DatasetError, IncompleteError, RarkitWarning, RecipeError, StoreError
from rarkit.files.system_errors import system_error
from rarkit.models.base import ModelFamily
from rarkit.models.config import ModelConfig
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.randomness import derived_seed
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.signals import HeldSignals
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.base import Stage, View, Work, read_log, write_log
from rarkit.stages.held_out import FILE, HeldOut, check_held_out
from rarkit.stages.initial_weights import InitialWeights, initial_weights, output_named, start_from
from rarkit.stages.passes import Passes
from rarkit.stages.previews import Previews, PreviewView
from rarkit.trackers.tracking import Trackers

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.models.image_model import ImageModel
    from rarkit.training.next_token import NextToken

TOKENS, LABELS = "train_tokens", "train_labels"


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
    initial_weights: InitialWeights | None = None
    """What ``train.init_from`` names."""
    previews: Annotated[PreviewView | None, NotInFingerprint()] = None
    """What pictures of samples are drawn with meanwhile; None if there are none."""


@final
class Train(Stage[TrainView]):
    """Tokens → ``model.safetensors`` (with the released tensor names) and the training log.

    The record holds ``parameters``, and ``precision`` and ``device``: what ``train.precision = "auto"`` stood for, and where.
    """

    name = "train"
    version = 3
    is_shared = True

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        if recipe.train is None:
            return None
        return ("tokenize",) if recipe.train.tokens is None else ()

    def looks_at(self, recipe: Recipe) -> tuple[str, ...]:
        return ("fit",) if recipe.train is not None and recipe.train.preview_every and recipe.tokenizer.learns else ()

    def view(self, experiment: Experiment) -> TrainView | None:
        recipe = experiment.recipe
        if recipe.train is None:
            return None
        tokens = imported(experiment)
        check_held_out(experiment, tokens)
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
            initial_weights=initial_weights(experiment),
            previews=PreviewView.of(experiment),
        )

    def reads(self, view: TrainView) -> tuple[StageOutput, ...]:
        tokens = () if view.train.tokens is None else (output_at(view.train.tokens, "tokenize"),)
        start = None if view.train.init_from is None else output_named(view.train.init_from)
        return tokens if start is None else (*tokens, start)

    def left_off(self, view: TrainView, output: StageOutput) -> str | None:
        step = checkpoint_step(output)
        return None if step is None else f"step {step:,} of {view.train.steps:,}"

    def run(self, work: Work[TrainView]) -> None:
        from rarkit.training.next_token import MODEL, NextToken

        view, output, settings = work.view, work.output, work.view.train
        tokens = work.inputs["tokenize"] if settings.tokens is None else output_at(settings.tokens, "tokenize")
        model = view.model.create(view.config, view.attention.build(), derived_seed(view.seed, "weights"))
        task = NextToken(
            model,
            RowReader(tokens, TOKENS, ranks=work.ranks, reporter=work.reporter),
            RowReader(tokens, LABELS, ranks=work.ranks, reporter=work.reporter),
            settings,
            seed=view.seed,
            scan_order_L=view.scan_order.order(*view.grid),
            schedule=view.permutation_schedule,
            costs=view.model.costs(view.config),
            keeps_weights=view.attention.keeps_weights,
        )
        parameters, metadata = sum(weight.numel() for weight in model.parameters()), model.metadata()
        if view.initial_weights is not None:
            # Also where a checkpoint follows, of which only reading tells whether it is whole.
            for change in start_from(view.initial_weights, model, view.model):
                work.reporter.say(f"train: {change}")
        passes = Passes(settings, view.model.costs(view.config), view.attention.keeps_weights, work.device, work.ranks)
        # Held back to the end, because there is no checkpoint of the last step.
        with ExitStack() as trackers, HeldSignals() as held:
            tracked = partial(_opened, work, trackers)
            trained = work.learning().train(
                task,
                settings,
                seed=view.seed,
                micro=passes.most(),
                watchers=_watchers(work, task, tokens),
                held=held,
                tracked=tracked,
                on_all=False,
            )
            if not work.ranks.first:
                return
            write_log(output, trained.log)
            output.write_file(MODEL_FILE, weights_file(trained.weights[MODEL], metadata))
            files = [MODEL_FILE, *_beside(output, settings)]
            output.finish(files, parameters=parameters, precision=trained.precision, device=work.device, grid=view.grid)
            work.remove_checkpoints(files)


def _watchers(work: Work[TrainView], task: NextToken, tokens: StageOutput) -> list[Watcher]:
    """What looks at the training, as the recipe asks."""
    settings, watchers = work.view.train, []
    if settings.evaluate_every is not None:
        held_out = HeldOut(work, task, tokens)
        watchers.append(Watcher(settings.evaluate_every, held_out.look, held_out.begin))
    if settings.preview_every is not None and work.view.previews is not None:
        watchers.append(Watcher(settings.preview_every, Previews(work, task, work.view.previews).look))
    return watchers


def _beside(output: StageOutput, settings: TrainSettings) -> list[str]:
    """The files that are kept beside the model: what was measured meanwhile, and every n-th checkpoint."""
    output.relist()
    names = [FILE] if FILE in output.file_names() else []
    if settings.keep_every is None:
        return names
    whole, damaged = kept_checkpoints(output, settings.keep_every)
    for step in damaged:
        warnings.warn(RarkitWarning(f"train: the checkpoint of step {step:,} is damaged, so it is not kept."), stacklevel=2)
    return [*names, *(name for seal in whole for name in (seal_name(seal.step), *seal.files))]


def _opened(work: Work[TrainView], ends: ExitStack, step: int) -> Trackers:
    """The trackers, which are closed after the output is finished: one that hangs would keep it waiting."""
    return ends.enter_context(work.trackers(step))


def imported(experiment: Experiment) -> StageOutput | None:
    """The tokens that ``train.tokens`` names; None if it names nothing.

    Raises:
        DatasetError: they are missing or damaged.
        RecipeError: their grid or codebook size differs from that of the recipe's tokenizer, or the dataset lacks some of their
            classes.
    """
    train = experiment.recipe.train
    if train is None or train.tokens is None:
        return None
    place = train.tokens
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


def weights_file(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A state dict as a safetensors file, with a model's sizes in the metadata."""
    from safetensors.torch import save

    return bytes(save({name: weight.detach().cpu().contiguous() for name, weight in state.items()}, dict(metadata)))


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
    return read_log(output)
