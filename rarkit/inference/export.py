"""The model of a run as one file."""

from __future__ import annotations

from pathlib import Path

from rarkit.errors import WeightsError
from rarkit.pipeline.receipt import open_run


def export_model(folder: str | Path, path: str | Path | None = None, *, merged: bool = False) -> str:
    """Writes the model of a run as one file that ``load_rar`` and, if not merged, the original code read.

    Args:
        folder: the run's folder, ``runs/<recipe>``.
        path: where to; ``.safetensors`` or ``.bin``, any fsspec URL; ``model.safetensors`` in the run's folder unless given.
        merged: fold both positional tables into one for the run's scan order.

    Returns:
        The path.

    Raises:
        RecipeError: the folder is no run.
        WeightsError: the run trained no model, or the file cannot be written.
        UserError: ``merged``, of a model family without positional tables.
        IncompleteError: the model is no longer whole in the store.
    """
    import torch

    from rarkit.files.weights import write_tensors
    from rarkit.stages.train import trained_model

    run = open_run(folder)
    recipe, experiment = run.recipe, run.experiment
    if "train" not in run.outputs:
        raise WeightsError(f"{folder} trained no model: its recipe samples from {recipe.model.weights}. Export that file's copy.")
    run.outputs["train"].require_complete()
    model = trained_model(run.outputs["train"], recipe.model, experiment.config, recipe.attention, "cpu")
    target = path or Path(folder) / ("model-merged.safetensors" if merged else "model.safetensors")
    if merged:
        model = model.merge_positions(torch.from_numpy(experiment.order_L))
    write_tensors(model.state_dict(), target, model.metadata())
    return str(target)
