"""train: tokens to a model, checkpointed on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any, final

import numpy as np

from rarkit.cache.fingerprint import digest
from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import opened
from rarkit.errors import DatasetError, IncompleteError, RecipeError
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.sizes import PRESETS
from rarkit.randomness import derived_seed
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid

if TYPE_CHECKING:
    from rarkit.models.rar.rar import RAR
    from rarkit.training.loop import StepRecord, TrainingPlan

MODEL_FILE = "model.safetensors"
LOG = "log_"
"""Before the names of the arrays that hold the training log."""


@final
class Train(Stage):
    """Tokens → ``model.safetensors`` (the released tensor names) and the training log."""

    name = "train"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.train is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        assert recipe.train is not None
        return ("tokenize",) if recipe.train.tokens is None else ()

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.train is not None
        return {
            "seed": recipe.seed,
            "scan_order": recipe.scan_order.identity(),
            "permutation_schedule": recipe.permutation_schedule.identity(),
            "attention": recipe.attention.identity(),
            "model": recipe.model.identity(),
            "train": recipe.train.identity(),
            **({} if recipe.train.tokens is None else {"tokens": digest(imported(recipe))}),
        }

    def run(self, work: Work) -> None:
        from rarkit.models.rar.rar import RAR
        from rarkit.training.loop import StepRecord, Trainer, as_columns

        recipe, output = work.recipe, work.output
        assert recipe.train is not None
        tokens = work.inputs["tokenize"] if recipe.train.tokens is None else imported(recipe)
        model = RAR(rar_config(recipe), recipe.attention.build(), seed=derived_seed(recipe.seed, "weights"))
        readers = RowReader(tokens, "train_tokens"), RowReader(tokens, "train_labels")
        trainer = Trainer(model, *readers, training_plan(recipe), work.device)
        records: list[StepRecord] = []
        state = _latest_checkpoint(output)
        if state is not None:
            records = [StepRecord(**record) for record in state.pop("log")]
            trainer.restore(state)
            for record in records:
                work.log(dataclasses.asdict(record))
            work.reporter.say(f"train: going on from the checkpoint at step {trainer.step:,}")
        with work.reporter.task("train", recipe.train.steps, "steps", trainer.step) as advance:
            while trainer.step < recipe.train.steps:
                record = trainer.advance()
                records.append(record)
                work.log(dataclasses.asdict(record))
                advance(1, f"loss {record.loss:.3f}, r {record.random_ratio:.2f}")
                if trainer.step % recipe.train.checkpoint_every == 0 and trainer.step < recipe.train.steps:
                    log = [dataclasses.asdict(record) for record in records]
                    _write_checkpoint(output, {**trainer.state(), "log": log}, trainer.step)
        for name, values in as_columns(records).items():
            output.write_array(LOG + name, values)
        output.write_file(MODEL_FILE, model_bytes(model))
        output.finish([MODEL_FILE], parameters=sum(weight.numel() for weight in model.parameters()))
        for name in output.file_names():
            if name != MODEL_FILE:
                output.remove_file(name)


def imported(recipe: Recipe) -> StageOutput:
    """The tokens that ``train.tokens`` names.

    Raises:
        DatasetError: there are none.
        RecipeError: they are not what the recipe's tokenizer and dataset give.
    """
    assert recipe.train is not None
    assert recipe.train.tokens is not None
    output = opened(recipe.train.tokens, "tokenize")
    where = f"train.tokens = {recipe.train.tokens!r}"
    if output.defect() is not None:
        raise DatasetError(f"{where}: {output.defect()}. Make them with rarkit tokens import.")
    record, grid, size = output.record(), list(model_grid(recipe)), recipe.tokenizer.codebook_size()
    if record["grid"] != grid or record["identity"].get("codebook_size", size) != size:
        raise RecipeError(
            f"{where} holds grids of {record['grid']} tokens from a codebook of {record['identity'].get('codebook_size')}, and the "
            f"recipe's tokenizer gives {grid} from {size}. Choose the tokenizer that they were made with."
        )
    return output


def rar_config(recipe: Recipe) -> RARConfig:
    """The sizes of the recipe's model; what the data decides (tokens, codebook, classes) comes from the data."""
    height, width = model_grid(recipe)
    settings, info = recipe.model, recipe.dataset.info()
    decided: dict[str, Any] = {
        "seq_len": height * width,
        "codebook_size": recipe.tokenizer.codebook_size(),
        "num_classes": info.num_classes,
        "dropout": settings.dropout,
        "attention_dropout": settings.attention_dropout,
        "class_dropout": settings.class_dropout,
    }
    if settings.preset is not None:
        return PRESETS[settings.preset].model_copy(update=decided)
    assert settings.hidden_size is not None
    return RARConfig(
        hidden_size=settings.hidden_size,
        depth=settings.depth or 0,
        num_heads=settings.num_heads or 0,
        mlp_hidden_size=settings.mlp_hidden_size or 4 * settings.hidden_size,
        **decided,
    )


def training_plan(recipe: Recipe) -> TrainingPlan:
    """The recipe's training, as the loop wants it."""
    from rarkit.training.loop import TrainingPlan

    assert recipe.train is not None
    train = recipe.train
    return TrainingPlan(
        seed=recipe.seed,
        steps=train.steps,
        batch_size=train.batch_size,
        micro_batch_size=train.micro_batch_size or train.batch_size,
        learning_rate=train.learning_rate,
        end_learning_rate=train.end_learning_rate,
        warmup_steps=train.warmup_steps,
        betas=train.betas,
        weight_decay=train.weight_decay,
        gradient_clip=train.gradient_clip,
        precision=train.precision,
        compile=train.compile,
        activation_checkpointing=train.activation_checkpointing,
        scan_order_L=recipe.scan_order.order(*model_grid(recipe)),
        schedule=recipe.permutation_schedule,
    )


def model_bytes(model: RAR) -> bytes:
    """A safetensors file of the model, its sizes in the metadata."""
    from safetensors.torch import save

    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}
    return bytes(save(tensors, {"config": model.config.model_dump_json()}))


def trained_model(output: StageOutput, recipe: Recipe, device: str) -> RAR:
    """The model that the stage left, in eval mode.

    Raises:
        IncompleteError: its file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from rarkit.models.rar.rar import RAR

    model = RAR(rar_config(recipe), recipe.attention.build(), seed=None)
    try:
        model.load_state_dict(load(output.read_file(MODEL_FILE)))
    except (SafetensorError, RuntimeError) as error:
        raise IncompleteError(f"the model of {output} is damaged: {error}. Make it again with --force train.") from error
    return model.to(device).eval()


def training_log(output: StageOutput) -> dict[str, np.ndarray[Any, Any]]:
    """The training log by column: step, loss, accuracy, gradient_norm, learning_rate, random_ratio."""
    names = [name for name in output.record()["arrays"] if name.startswith(LOG)]
    return {name.removeprefix(LOG): output.read_array(name) for name in names}


# Checkpoints. The seal is written after the state and says what it must be, so that half a checkpoint counts as none.


def _write_checkpoint(output: StageOutput, state: dict[str, Any], step: int) -> None:
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    older = output.file_names()
    output.write_file(f"checkpoint-{step}.pt", data)
    output.write_file(f"checkpoint-{step}.json", json.dumps({"sha256": hashlib.sha256(data).hexdigest()}).encode())
    for name in older:
        output.remove_file(name)


def _latest_checkpoint(output: StageOutput) -> dict[str, Any] | None:
    import torch

    names = output.file_names()
    steps = [int(name.removeprefix("checkpoint-").removesuffix(".json")) for name in names if name.endswith(".json")]
    for step in sorted(steps, reverse=True):
        seal = output.read_file(f"checkpoint-{step}.json")
        data = output.read_file(f"checkpoint-{step}.pt") if f"checkpoint-{step}.pt" in names else b""
        if f'"{hashlib.sha256(data).hexdigest()}"'.encode() in seal:
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            return state
    return None
