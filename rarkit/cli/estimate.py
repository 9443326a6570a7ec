"""How ``rarkit plan`` says what a run will need."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.table import Table

from rarkit.cli.units import gpu_time, size
from rarkit.models.rar.sampling_costs import SamplingBytes
from rarkit.estimate.estimate import USABLE, UTILISATION, Needs, SampleNeeds, TrainNeeds


def print_needs(needs: Needs, console: Console) -> None:
    """Below the table of stages."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in _rows(needs):
        table.add_row(name, said)
    console.print()
    console.print(table)
    if needs.missing:
        console.print("\nMissing on this machine:", style="yellow")
        for name, said in needs.missing.items():
            console.print(f"✗ {name}: {said}", markup=False, soft_wrap=True)


def _rows(needs: Needs) -> list[tuple[str, str]]:
    if needs.model is None:
        return [("needs", "size and classes of the images are not known without the data, and so nothing else is")]
    count = needs.model.parameter_count()
    rows = [("model", f"{count:,} parameters, {size(4 * count)} in float32; {needs.model.seq_len} tokens an image")]
    if needs.images:
        said = ", ".join(f"{split} {'not known yet' if one is None else f'{one:,}'}" for split, one in needs.images.items())
        rows.append(("images", said))
    if needs.disk:
        rows.append(("disk", ", ".join(f"{name} {size(room)}" for name, room in needs.disk.items())))
    if needs.train is not None:
        rows += _train_rows(needs, needs.train)
    if needs.sample is not None:
        rows += _sample_rows(needs, needs.sample)
    counted = "2 FLOP for each weight of a matrix and token it meets, and attention; backward is twice forward"
    rows.append(("reckoned", f"{counted}; one {needs.gpu.title} at {UTILISATION:.0%}; tokenizer and evaluation left out"))
    return rows


def _train_rows(needs: Needs, train: TrainNeeds) -> list[tuple[str, str]]:
    memory = train.memory
    work = f"{train.step_flops:.3g} FLOP a step, {train.flops:.3g} in all: {gpu_time(train.gpu_hours)}"
    largest = train.largest_micro_batch
    room = f" (up to {largest:,} fit)" if train.fits and largest is not None and largest > train.micro_batch else ""
    held = (
        f"{size(memory.total)} at {train.micro_batch:,} images a pass{room}: weights {size(memory.weights)}, gradients "
        f"{size(memory.gradients)}, AdamW {size(memory.optimizer)}, casts {size(memory.casts)}, activations "
        f"{size(memory.activations)}"
    )
    rows = [("train", work), ("  memory", held)]
    if not train.fits:
        advice = (
            f"set train.micro_batch_size = {largest}"
            if largest is not None
            else "set train.activation_checkpointing, or choose a smaller model"
        )
        rows.append(("", f"{_too_much(needs)}: {advice}"))
    return rows


def _sample_rows(needs: Needs, sample: SampleNeeds) -> list[tuple[str, str]]:
    work = f"{sample.images:,} images, {sample.flops:.3g} FLOP in all: {gpu_time(sample.gpu_hours)}"
    held = f"{size(sample.memory.total)} at {sample.batch:,} images a batch: {_decoding(sample.memory)}"
    on_cpu = f"{size(sample.cpu_memory.total)}: {_decoding(sample.cpu_memory)}"
    rows = [("sample", work), ("  memory", held)]
    if not sample.fits:
        rows.append(("", f"{_too_much(needs)}: lower sample.batch_size"))
    return [*rows, ("  on a CPU", on_cpu)]


def _decoding(memory: SamplingBytes) -> str:
    laid_out = f", a copy of the projections {size(memory.laid_out)}" if memory.laid_out else ""
    return (
        f"weights {size(memory.weights)}{laid_out}, KV cache {size(memory.kv_cache)}, modulations {size(memory.modulations)}, "
        f"logits {size(memory.logits)}, workspace {size(memory.workspace)}"
    )


def _too_much(needs: Needs) -> str:
    return f"[yellow]more than {USABLE:.0%} of {needs.gpu.memory / 1e9:.0f} GB[/yellow]"


def needs_as_json(needs: Needs) -> dict[str, Any]:
    """The needs for scripts: counts, bytes, FLOPs and hours as numbers."""
    found = dataclasses.asdict(dataclasses.replace(needs, model=None))
    found["utilisation"] = UTILISATION
    found["model"] = None
    if needs.model is not None:
        count = needs.model.parameter_count()
        found["model"] = {**needs.model.model_dump(mode="json"), "parameters": count, "bytes": 4 * count}
    for name, part in (("train", needs.train), ("sample", needs.sample)):
        if part is not None:
            found[name]["flops"] = part.flops
            found[name]["memory"]["total"] = part.memory.total
    if needs.sample is not None:
        found["sample"]["cpu_memory"]["total"] = needs.sample.cpu_memory.total
    return found
