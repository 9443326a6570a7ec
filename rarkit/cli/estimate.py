"""Prints the estimate of ``rarkit plan``."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.table import Table
from rich.text import Text

from rarkit.cli.units import brief, duration, gpu_time, size
from rarkit.estimate.estimate import Estimate, SampleEstimate
from rarkit.estimate.fit import FitEstimate
from rarkit.estimate.this_machine import UTILISATION, Here
from rarkit.estimate.training import TrainEstimate
from rarkit.models.base import SamplingBytes
from rarkit.runtime.console import PrintableConsole, styled
from rarkit.training.memory import USABLE

Row = tuple[str, str | Text]
"""What is needed, and how much of it."""


def print_estimate(estimate: Estimate, console: PrintableConsole) -> None:
    """Prints what a run needs, and what is missing here."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(estimate):
        table.add_row(name, text)
    for change in estimate.initial_changes:
        console.print(f"train {change}", soft_wrap=True)
    console.print()
    console.print(table)
    if estimate.missing:
        console.print()
        console.print("Missing on this machine:", style="yellow")
        for name, text in estimate.missing.items():
            console.print(f"✗ {name}: {text.removeprefix(f'{name}: ')}", soft_wrap=True)


def _rows(estimate: Estimate) -> list[Row]:
    if estimate.model is None:
        return [("needs", "unknown, because size and classes of the images cannot be determined without the data")]
    parameters = estimate.model.parameter_count()
    rows: list[Row] = [
        ("model", f"{parameters:,} parameters, {size(4 * parameters)} in float32; {estimate.model.seq_len} tokens per image")
    ]
    if estimate.images:
        counts = (f"{split} {'unknown' if count is None else f'{count:,}'}" for split, count in estimate.images.items())
        rows.append(("images", ", ".join(counts)))
    if estimate.disk:
        rows.append(("disk", ", ".join(f"{name} {size(count)}" for name, count in estimate.disk.items())))
    if estimate.here is not None:
        rows.append(("this machine", _here(estimate.here)))
    if estimate.fit is not None:
        rows += _fit_rows(estimate, estimate.fit)
    if estimate.train is not None:
        rows += _train_rows(estimate, estimate.train, "train", "train.micro_batch_size")
    if estimate.sample is not None:
        rows += _sample_rows(estimate, estimate.sample)
    rows += _attention_rows(estimate)
    flops = "2 FLOP per matrix weight and token, plus attention; the backward pass is twice the forward pass"
    assumed = f"{flops}; {estimate.gpu.title} at {UTILISATION:.0%} utilisation; without stages tokenize and evaluate"
    rows.append(("assumes", assumed))
    return rows


def _fit_rows(estimate: Estimate, fit: FitEstimate) -> list[Row]:
    """Of the tokenizer's training."""
    rows: list[Row] = []
    if fit.steps is not None:
        counts = [f"{name} {count:,}" for name, count in fit.parameters.items()]
        trained = f"tokenizer {fit.tokenizer!r}, parameters: {', '.join(counts)}; {fit.steps:,} steps of {fit.images:,} images"
        rows.append(("fit", trained))
    if fit.training is not None:
        rows += _train_rows(estimate, fit.training, "", fit.micro_setting)
    if fit.held is not None and fit.training is None:
        held = ", ".join(f"{use} {size(count)}" for use, count in fit.held.uses.items())
        rows.append(("  memory", f"{size(fit.held.total)} and activations: {held}"))
    if fit.unknown is not None:
        what = "what its passes take is unknown" if rows else f"what tokenizer {fit.tokenizer!r} needs to learn is unknown"
        rows.append(("" if rows else "fit", f"{what}: {fit.unknown}"))
    return rows


def _train_rows(estimate: Estimate, train: TrainEstimate, name: str, micro_setting: str | None) -> list[Row]:
    memory = train.memory
    work = f"{train.step_flops:.3g} FLOP per step, {train.flops:.3g} in total: {gpu_time(train.gpu_hours)}"
    largest = train.largest_micro_batch
    rows: list[Row] = [(name, work), ("  step", _step(estimate, train))]
    room = f" (up to {largest:,} fit)" if train.fits and largest is not None and largest > train.micro_batch else ""
    held = ", ".join(f"{use} {size(count)}" for use, count in memory.uses.items())
    each = " on each GPU" if train.processes > 1 else ""
    rows.append(("  memory", f"{size(memory.total)}{each} at {train.micro_batch:,} images per pass{room}: {held}"))
    if not train.fits:
        lower = f"set {micro_setting} = {largest}" if largest is not None and micro_setting is not None else train.lower
        rows.append(("", _too_much(estimate) + f": {lower}"))
    return rows


def _step(estimate: Estimate, train: TrainEstimate) -> str:
    """How long a step takes, and how its images are divided."""
    count = f"{train.processes} {estimate.gpu.title}" if train.processes > 1 else f"one {estimate.gpu.title}"
    replicate = train.processes // train.shard
    copies = f"{replicate} copies of the weights, each" if replicate > 1 else "the weights"
    shards = f", {copies} in {train.shard} shards" if train.shard > 1 else ""
    passes = f"{train.accumulation:,} passes" if train.accumulation > 1 else "a pass"
    share = f"{train.share:,} images each" if train.processes > 1 else f"{train.share:,} images"
    return f"{brief(train.step_seconds)} on {count}{shards}: {share}, in {passes} of {train.micro_batch:,}"


def _sample_rows(estimate: Estimate, sample: SampleEstimate) -> list[Row]:
    work = f"{sample.images:,} images, {sample.flops:.3g} FLOP in total: {gpu_time(sample.gpu_hours)}"
    bytes_used = f"{size(sample.memory.total)} at {sample.batch:,} images per batch: {_decoding(sample.memory)}"
    on_cpu = f"{size(sample.cpu_memory.total)}: {_decoding(sample.cpu_memory)}"
    rows: list[Row] = [("sample", work), ("  memory", bytes_used)]
    if not sample.fits:
        rows.append(("", _too_much(estimate) + ": lower sample.batch_size"))
    return [*rows, ("  on a CPU", on_cpu)]


def _decoding(memory: SamplingBytes) -> str:
    laid_out = f", copy of the projections {size(memory.laid_out)}" if memory.laid_out else ""
    return (
        f"weights {size(memory.weights)}{laid_out}, KV cache {size(memory.kv_cache)}, modulations {size(memory.modulations)}, "
        f"logits {size(memory.logits)}, workspace {size(memory.workspace)}"
    )


def _attention_rows(estimate: Estimate) -> list[Row]:
    """For each attention backend whether this machine can use it for this recipe."""
    usable = ", ".join(name for name, reason in estimate.attention.items() if reason is None)
    rows: list[Row] = [("attention", f"{usable} can be used here")] if usable else []
    return rows + [("", reason) for reason in estimate.attention.values() if reason is not None]


def _here(here: Here) -> str:
    stages = (("fit", here.fit_seconds), ("train", here.train_seconds), ("sample", here.sample_seconds))
    times = ", ".join(f"{name} {duration(seconds)}" for name, seconds in stages if seconds is not None) or "time unknown"
    precision = f", trains in {here.precision}" if here.precision else ""
    measure = "" if here.basis.startswith("measured") else "; --measure times a few steps"
    return f"{times} on {here.device}{precision} ({here.basis}{measure})"


def _too_much(estimate: Estimate) -> Text:
    return styled(f"more than {USABLE:.0%} of {estimate.gpu.memory / 1e9:.0f} GB", "yellow")


def estimate_as_json(estimate: Estimate) -> dict[str, Any]:
    """The estimate as plain JSON data: counts, bytes, FLOPs and hours as numbers."""
    data = dataclasses.asdict(dataclasses.replace(estimate, model=None))
    data["utilisation"] = UTILISATION
    data["model"] = None
    if estimate.model is not None:
        count = estimate.model.parameter_count()
        data["model"] = {**estimate.model.model_dump(mode="json"), "parameters": count, "bytes": 4 * count}
    for name, part in (("train", estimate.train), ("sample", estimate.sample)):
        if part is not None:
            data[name]["flops"] = part.flops
            data[name]["memory"]["total"] = part.memory.total
    if estimate.fit is not None and estimate.fit.training is not None:
        training = estimate.fit.training
        data["fit"]["training"]["flops"] = training.flops
        data["fit"]["training"]["memory"]["total"] = training.memory.total
    if estimate.sample is not None:
        data["sample"]["cpu_memory"]["total"] = estimate.sample.cpu_memory.total
    return data
