"""Fills ``runs/<recipe>/`` from the store: pictures, page, numbers, log."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import RowReader
from rarkit.datasets.links import sentence as links_sentence
from rarkit.evaluation.inception_score import taking_turns
from rarkit.evaluation.record import MetricRecord
from rarkit.files.atomic import write_text
from rarkit.files.npz import write_npz
from rarkit.recipe.experiment import Experiment
from rarkit.recipe.text import to_toml
from rarkit.rendering.figures import Scan
from rarkit.report.code_use import code_use
from rarkit.report.curves import guidance_curve, training_curves
from rarkit.report.data import RunReport, StageRow
from rarkit.report.fit_section import FitSection, fit_section
from rarkit.report.grids import picture_grids
from rarkit.report.remarks import remarks
from rarkit.stages.base import read_log
from rarkit.stages.evaluate import measured
from rarkit.stages.fit import fit_measured
from rarkit.stages.held_out import HeldOutBits, held_out_bits
from rarkit.stages.nearest_training_images import SAMPLES
from rarkit.stages.train import training_log

NPZ_ROWS = 64


def publish(experiment: Experiment, outputs: Mapping[str, StageOutput], folder: Path) -> list[str]:
    """Writes what people look at, from the outputs that are complete. Which run made them does not matter.

    Args:
        experiment: what was run.
        outputs: the outputs that are complete, by stage.
        folder: an existing folder; files in it are replaced.

    Returns:
        The names of the files.
    """
    from rarkit.rendering.pictures import labelled
    from rarkit.rendering.png import write_png
    from rarkit.report.page import render

    recipe = experiment.recipe
    log = training_log(outputs["train"]) if "train" in outputs else {}
    held_out = held_out_bits(outputs["train"]) if "train" in outputs else []
    grids = picture_grids(experiment, outputs)
    fit = fit_section(outputs["fit"], experiment.codebook_size) if "fit" in outputs else FitSection()
    metrics, lacking = measured(outputs["evaluate"]) if "evaluate" in outputs else ([], [])
    report = RunReport(
        title=recipe.title,
        recipe_name=recipe.recipe_name,
        recipe_toml=to_toml(recipe),
        command=recipe.command,
        when=_utc(datetime.datetime.now(datetime.UTC)),
        facts=_facts(experiment, outputs),
        stages=tuple(_stage_row(output) for output in outputs.values()),
        grids=tuple(grids.values()),
        curves=(
            *training_curves(log, metrics, held_out=experiment.held_out_split == "test", measured=held_out),
            *guidance_curve(experiment),
            *(code_use(outputs["evaluate"]) if "evaluate" in outputs else ()),
        ),
        scan=Scan(recipe.scan_order.name, experiment.order_L, *experiment.grid),
        metrics=tuple(metrics),
        fit_curves=fit.curves,
        fit_sentences=fit.sentences,
        notes=(*_notes(experiment, metrics, lacking), *(() if recipe.is_rehearsal else fit.remarks)),
        rehearsal=recipe.is_rehearsal,
    )
    files = []
    if SAMPLES in grids:
        write_png(labelled(grids[SAMPLES]), folder / "samples.png")
        files.append("samples.png")
    if metrics:
        numbers = {"recipe": recipe.recipe_name, "metrics": [metric.to_json() for metric in metrics], "lacking": lacking}
        write_text(folder / "metrics.json", json.dumps(numbers, indent=2) + "\n")
        files.append("metrics.json")
    lines = _fit_lines(outputs["fit"]) if "fit" in outputs else ""
    lines += _log_lines(log, held_out) if log else ""
    if lines:
        write_text(folder / "log.jsonl", lines)
        files.append("log.jsonl")
    if recipe.sample is not None and recipe.sample.npz and "sample" in outputs:
        _write_samples(outputs["sample"], folder / "samples.npz")
        files.append("samples.npz")
    write_text(folder / "report.html", render(report))
    return [*files, "report.html"]


def _write_samples(output: StageOutput, path: Path) -> None:
    images, labels_N = RowReader(output, "images"), output.read_array("labels")
    # The ADM evaluator takes consecutive images together for the inception score; they are stored class by class.
    turn_N = taking_turns(labels_N)
    blocks = (images.rows(turn_N[start : start + NPZ_ROWS]) for start in range(0, len(turn_N), NPZ_ROWS))
    write_npz(blocks, labels_N[turn_N], path)


def _notes(experiment: Experiment, metrics: Sequence[MetricRecord], lacking: Sequence[str]) -> tuple[str, ...]:
    return tuple(filter(None, (*remarks(metrics), *lacking, links_sentence(experiment.recipe.dataset.links_out()))))


def _log_lines(log: Mapping[str, NDArray[Any]], held_out: Sequence[HeldOutBits]) -> str:
    return _lines("train", _rows(log), [entry.record() for entry in held_out])


def _fit_lines(output: StageOutput) -> str:
    return _lines("fit", _rows(read_log(output)), _rows(fit_measured(output)))


def _lines(stage: str, log: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> str:
    """A line for each step, and after it what was measured then."""
    steps = [(record["step"] + 1, record) for record in log] + [(entry["step"], entry) for entry in measured]
    ordered = sorted(steps, key=lambda pair: pair[0])
    return "".join(json.dumps({"stage": stage, **record}) + "\n" for _, record in ordered)


def _rows(columns: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*(values.tolist() for values in columns.values()), strict=True)]


def _facts(experiment: Experiment, outputs: Mapping[str, StageOutput]) -> tuple[str, ...]:
    """What was trained and sampled, in a few words each."""
    recipe, (height, width) = experiment.recipe, experiment.grid
    facts = [f"images of {height} × {width} tokens from {experiment.codebook_size:,} codes"]
    if "train" in outputs and recipe.train is not None:
        record = outputs["train"].begun()
        facts.append(f"{recipe.model.name} of {record.parameters or 0:,} parameters")
        facts.append(f"trained for {recipe.train.steps:,} steps of {recipe.train.batch_size:,} images in {record.precision}")
    if "sample" in outputs and recipe.sample is not None:
        facts.append(f"{recipe.sample.per_class * len(experiment.sample_classes):,} samples")
    return tuple(facts)


def _stage_row(output: StageOutput) -> StageRow:
    record = output.begun()
    finished = datetime.datetime.fromtimestamp(record.finished or 0, datetime.UTC)
    return StageRow(output.stage, output.fingerprint, _utc(finished), record.seconds, record.machine or "")


def _utc(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")
