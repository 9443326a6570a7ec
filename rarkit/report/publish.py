"""Fills ``runs/<recipe>/`` from the store: pictures, page, numbers, log."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import RowReader
from rarkit.evaluation.inception_score import taking_turns
from rarkit.files.atomic import write_text
from rarkit.files.npz import write_npz
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.text import to_toml
from rarkit.rendering.figures import Curve, PictureGrid, Scan, Series
from rarkit.report.data import RunReport, StageRow
from rarkit.runtime.machine import machine_description
from rarkit.stages.evaluate import metric_records
from rarkit.stages.train import training_log

SHOWN_PER_CLASS = 10
SHOWN_CLASSES = 10
NPZ_ROWS = 64


def publish(
    experiment: Experiment, outputs: Mapping[str, StageOutput], stages: Sequence[StageRow], seconds: float, folder: Path
) -> list[str]:
    """Writes what people look at, from the outputs that are complete.

    Args:
        experiment: what was run.
        outputs: the outputs that are complete, by stage.
        stages: what each stage came to.
        seconds: how long it took in all.
        folder: an existing folder; files in it are replaced.

    Returns:
        The names of the files.
    """
    from rarkit.rendering.pictures import labelled
    from rarkit.rendering.png import write_png
    from rarkit.report.page import render

    recipe = experiment.recipe
    log = training_log(outputs["train"]) if "train" in outputs else {}
    grids = _grids(experiment, outputs)
    metrics = metric_records(outputs["evaluate"]) if "evaluate" in outputs else []
    report = RunReport(
        title=recipe.title,
        recipe_name=recipe.recipe_name,
        recipe_toml=to_toml(recipe),
        command=recipe.command,
        when=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=seconds,
        machine=machine_description(),
        stages=tuple(stages),
        grids=tuple(grids.values()),
        curves=(*_training_curves(log), *_guidance_curve(experiment)),
        scan=_scan(experiment),
        metrics=tuple(metrics),
        rehearsal=recipe.is_rehearsal,
    )
    files = []
    if "samples" in grids:
        write_png(labelled(grids["samples"]), folder / "samples.png")
        files.append("samples.png")
    if metrics:
        numbers = {"recipe": recipe.recipe_name, "metrics": [metric.to_json() for metric in metrics]}
        write_text(folder / "metrics.json", json.dumps(numbers, indent=2) + "\n")
        files.append("metrics.json")
    if log:
        rows = zip(*(values.tolist() for values in log.values()), strict=True)
        lines = (json.dumps({"stage": "train", **dict(zip(log, row, strict=True))}) for row in rows)
        write_text(folder / "log.jsonl", "".join(f"{line}\n" for line in lines))
        files.append("log.jsonl")
    if recipe.sample is not None and recipe.sample.npz and "sample" in outputs:
        images, labels_N = RowReader(outputs["sample"], "images"), outputs["sample"].read_array("labels")
        # The ADM evaluator takes consecutive images together for the inception score; they are stored class by class.
        turn_N = taking_turns(labels_N)
        blocks = (images.rows(turn_N[start : start + NPZ_ROWS]) for start in range(0, len(turn_N), NPZ_ROWS))
        write_npz(blocks, labels_N[turn_N], folder / "samples.npz")
        files.append("samples.npz")
    write_text(folder / "report.html", render(report))
    return [*files, "report.html"]


def _grids(experiment: Experiment, outputs: Mapping[str, StageOutput]) -> dict[str, PictureGrid]:
    grids, recipe = {}, experiment.recipe
    if "sample" in outputs and recipe.sample is not None:
        names, per_class, classes = experiment.images.class_names, recipe.sample.per_class, experiment.sample_classes
        shown = np.unique(np.linspace(0, len(classes) - 1, SHOWN_CLASSES).round().astype(int))
        count = min(SHOWN_PER_CLASS, per_class)
        images = [outputs["sample"].read_array("images", place * per_class, place * per_class + count) for place in shown]
        grids["samples"] = PictureGrid(
            title="Samples",
            caption=f"{count} {'sample' if count == 1 else 'samples'} of each class shown, in the order in which they were drawn: "
            "nothing was selected.",
            images_NHWC=np.concatenate(images),
            columns=count,
            row_labels=tuple(names[classes[place]] for place in shown),
        )
    if "reference" in outputs and "shown_originals" in outputs["reference"].record()["arrays"]:
        pairs = [outputs["reference"].read_array(f"shown_{which}") for which in ("originals", "reconstructions")]
        grids["reconstructions"] = PictureGrid(
            title="Reconstructions",
            caption="Held-out images, and below each what remains of it after the tokenizer.",
            images_NHWC=np.concatenate(pairs),
            columns=len(pairs[0]),
            row_labels=("image", "tokens"),
        )
    return grids


def _training_curves(log: Mapping[str, Any]) -> list[Curve]:
    if not log:
        return []
    step, loss = log["step"], log["loss"] / math.log(2)
    window = max(1, len(step) // 50)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
    series = [Series("each step", step, loss, faint=window > 1)]
    if window > 1:
        series.append(Series(f"mean of {window}", step[window - 1 :], smooth))
    return [
        Curve("Loss", "step", "bits per token", tuple(series)),
        Curve("Random ratio", "step", "share of random permutations", (Series("r", step, log["random_ratio"]),)),
        Curve("Learning rate", "step", "learning rate", (Series("learning rate", step, log["learning_rate"]),)),
    ]


def _guidance_curve(experiment: Experiment) -> list[Curve]:
    sample = experiment.recipe.sample
    if sample is None:
        return []
    steps = np.arange(experiment.config.seq_len)
    scales = np.array([sample.guidance.scale_at(int(step), len(steps)) for step in steps])
    return [Curve("Guidance", "token", "scale", (Series(sample.guidance.name, steps, scales),))]


def _scan(experiment: Experiment) -> Scan:
    height, width = experiment.grid
    return Scan(experiment.recipe.scan_order.name, experiment.order_L, height, width)
