"""Exports of a run: the model, the tokenizer, or a bundle of both with all that belongs to them."""

from __future__ import annotations

import os
from pathlib import Path

from rarkit.errors import WeightsError
from rarkit.inference.source import Source
from rarkit.inference.tokenizer_source import open_run_or_bundle
from rarkit.pipeline.receipt import open_run
from rarkit.runtime.random_state import random_state_kept
from rarkit.sampling.settings import SampleSettings


@random_state_kept()
def export_model(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    merged: bool = False,
    store: str | os.PathLike[str] | None = None,
) -> str:
    """Writes the model of a run to a single file, which ``load_rar`` reads, and the original code too unless it is merged.

    Args:
        folder: the run's folder, ``runs/<recipe>``.
        path: path or fsspec URL of the file, ``.safetensors`` or ``.bin``; defaults to ``model.safetensors`` in the run's folder
            (``model-merged.safetensors`` if merged).
        merged: fold both positional tables into one, for the run's scan order.
        store: where the run's store is now; None for where it was.

    Returns:
        The path of the file.

    Raises:
        RecipeError: the folder is not a run.
        WeightsError: the run trained no model, or the file cannot be written.
        UserError: ``merged`` with a model family that has no positional tables.
        IncompleteError: the model is missing from the store, or damaged.
        StoreError: there is no store where ``store`` says.
    """
    import torch

    from rarkit.files.weights import write_tensors
    from rarkit.stages.train import trained_model

    run = open_run(folder, store)
    recipe, experiment = run.recipe, run.experiment
    if recipe.train is None:
        raise WeightsError(f"{folder} trained no model: its recipe samples from {recipe.model.weights}. Copy that file instead.")
    model = trained_model(run.output("train"), recipe.model, experiment.config, recipe.attention, "cpu")
    name = "model-merged.safetensors" if merged else "model.safetensors"
    target = os.fspath(path or Path(folder) / name)
    if merged:
        model = model.merge_positions(torch.from_numpy(experiment.order_L))
    write_tensors(model.state_dict(), target, model.metadata())
    return target


@random_state_kept()
def export_bundle(
    folder: str | os.PathLike[str], path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None
) -> str:
    """Writes a run's model, tokenizer, scan order and class names to a single file, which ``rarkit.load`` reads.

    Args:
        folder: the run's folder, ``runs/<recipe>``.
        path: path or fsspec URL of the bundle, ``.safetensors``.
        store: where the run's store is now; None for where it was.

    Returns:
        The path of the file.

    Raises:
        RecipeError: the folder is not a run.
        WeightsError: the file cannot be written, or has another suffix; or weights that the run used are missing or have changed.
        CapabilityError: a part reads files that cannot be in a bundle.
        IncompleteError: the model is missing from the store, or damaged.
        StoreError: there is no store where ``store`` says.
    """
    run = open_run(folder, store)
    settings = run.recipe.sample or SampleSettings()
    # The weights as they are, in whatever type they are sampled from.
    source = Source(run.experiment, settings.model_copy(update={"precision": "float32"}), run)
    source.check_weights()
    return source.write_bundle(settings, source.model("cpu"), path)


@random_state_kept()
def export_tokenizer(
    place: str | os.PathLike[str], path: str | os.PathLike[str], *, store: str | os.PathLike[str] | None = None
) -> str:
    """Writes the tokenizer of a run or a bundle to a single file, which ``[tokenizer] weights = …`` reads.

    Of a run, the tokenizer need only have been trained: ``rarkit run RECIPE --until fit`` does that.

    Args:
        place: the run's folder, ``runs/<recipe>``; path or fsspec URL of a bundle.
        path: path or fsspec URL of the file, ``.safetensors``; there must be none yet.
        store: where the run's store is now; None for where it was.

    Returns:
        The path of the file.

    Raises:
        UserError: the place is neither.
        WeightsError: the file cannot be written, or has another suffix; or the tokenizer was not trained yet, or its weights have
            changed since.
        CapabilityError: the tokenizer reads files that cannot be in this one.
        IncompleteError: what it learned is missing from the store, or damaged.
        StoreError: there is a file of that name, or no store where ``store`` says.
    """
    return open_run_or_bundle(place, store).write_tokenizer(path)
