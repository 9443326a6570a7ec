"""What the page shows of a tokenizer's training: curves, notes, and a remark where few codes are in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.engine.best import HELD_OUT
from rarkit.engine.task import ERROR
from rarkit.engine.trained import VALUE, Note
from rarkit.rendering.figures import Curve, Series
from rarkit.rendering.numbers import number
from rarkit.report.curves import LOOKS, STEP, Look, curve
from rarkit.stages.base import read_log
from rarkit.stages.fit import fit_kept_step, fit_measured, fit_notes

USED = "used_codes"
"""The column of the log with the number of codes that were in use lately, if the tokenizer's task logs that."""
WINDOW = f"{USED}_window"
"""The note of the number of steps that this count looks back on."""
FEW = 0.5
"""Of all codes; where fewer are in use, a remark says so."""
TITLES = {
    USED: ("Codes in use", "codes that were seen lately"),
    "perplexity": ("Perplexity", "codes that would be as hard to guess if used equally"),
    f"{HELD_OUT}psnr": ("PSNR of held-back images", "dB, higher is better"),
    f"{HELD_OUT}{ERROR}": ("Error of held-back images", "lower is better"),
}
NORM = "gradient_norm"
STEADY = {USED, "perplexity", "learning_rate"}
"""Columns that are not averaged over steps."""


@final
@dataclass(frozen=True)
class FitSection:
    """The tokenizer's training, as the page shows it. Empty where the tokenizer did not learn with the engine."""

    curves: tuple[Curve, ...] = ()
    sentences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """For the top of the page."""


def fit_section(output: StageOutput, codes: int) -> FitSection:
    """Reads what ``fit`` kept of its training. ``codes``: V, the codebook size."""
    log, measured, notes = read_log(output), fit_measured(output), fit_notes(output)
    kept = _lowest(measured) if (chosen := fit_kept_step(output)) is None else chosen
    sentences = [note.sentence.replace(VALUE, number(note.value)) for note in notes]
    return FitSection(
        curves=(*measured_curves(measured, notes, kept), *logged_curves(log, notes, codes)),
        sentences=(*_kept(measured, kept), *sentences),
        remarks=collapse(log, notes, codes),
    )


def logged_curves(log: Mapping[str, NDArray[Any]], notes: Sequence[Note], codes: int) -> list[Curve]:
    """A chart for each column of the log."""
    if not log or not len(log[STEP]):
        return []
    curves = []
    for name in (name for name in log if name != STEP):
        beside = _lines(name, log[STEP], notes)
        if name == USED:
            beside = [*beside, _line("all codes", log[STEP], codes)]
        curves.append(curve(name, log, _look(name), beside))
    return curves


def measured_curves(measured: Mapping[str, NDArray[Any]], notes: Sequence[Note], kept: int) -> list[Curve]:
    """A chart for each number that was measured of what is held back, with a dot for the weights kept, those after ``kept`` steps.

    Those need not have the lowest error of all: a loss that begins late makes earlier errors another thing (``Task.best_from``).
    """
    if not measured or not len(measured[STEP]):
        return []
    error, step = measured[HELD_OUT + ERROR], measured[STEP]
    others = [name for name in measured if name not in (STEP, HELD_OUT + ERROR)]
    # A task whose error is another of its numbers, or that with the sign turned, would have it drawn twice.
    known = any(np.allclose(np.abs(measured[name]), np.abs(error)) for name in others)
    is_kept = step == kept
    curves = []
    for name in others if known else [HELD_OUT + ERROR, *others]:
        look = _look(name)
        series = (
            Series("held-back images", step, measured[name]),
            Series("the weights that are kept", step[is_kept], measured[name][is_kept]),
            *_lines(name, step, notes),
        )
        curves.append(Curve(look.title, "step", look.y_label, series))
    return curves


def collapse(log: Mapping[str, NDArray[Any]], notes: Sequence[Note], codes: int) -> tuple[str, ...]:
    """A remark where the training ended with few codes in use. In fewer steps than are looked back on, most had no chance to be."""
    window = next((note.value for note in notes if note.name == WINDOW), None)
    if USED not in log or window is None or len(log[USED]) < max(1, window):
        return ()
    used = int(log[USED][-1])
    if used >= FEW * codes:
        return ()
    return (
        f"The tokenizer's training ended with {used:,} of {codes:,} codes in use: the others say nothing, and images lose what "
        "they could have said. Lower the number of codes, have dead ones put back sooner, or choose a quantizer that uses its "
        "levels evenly (fsq).",
    )


def _lowest(measured: Mapping[str, NDArray[Any]]) -> int:
    """The steps after which the error was lowest; 0 if nothing was measured."""
    return int(measured[STEP][measured[HELD_OUT + ERROR].argmin()]) if measured and len(measured[STEP]) else 0


def _kept(measured: Mapping[str, NDArray[Any]], kept: int) -> tuple[str, ...]:
    if not measured or not len(measured[STEP]):
        return ()
    last = int(measured[STEP][-1])
    if kept == 0:
        return (f"The weights before the first step were kept: none of the {last:,} steps made the held-back images better.",)
    among = "" if kept == _lowest(measured) else " of those that were trained with every loss"
    return (f"The weights after {kept:,} of {last:,} steps were kept, which were the best on the held-back images{among}.",)


def _look(name: str) -> Look:
    words = name.removeprefix(HELD_OUT).replace("_", " ")
    title = f"{words.capitalize()} of held-back images" if name.startswith(HELD_OUT) else words.capitalize()
    if name.endswith(NORM):
        return LOOKS[NORM]._replace(title=words.capitalize())
    return Look(*TITLES.get(name, (title, words)), noisy=name not in STEADY)


def _lines(name: str, step: NDArray[Any], notes: Sequence[Note]) -> list[Series]:
    return [_line(note.name, step, note.value) for note in notes if note.beside == name]


def _line(label: str, step: NDArray[Any], value: float) -> Series:
    # One that has the length of a point would be drawn as one.
    return Series(label, step[[0, -1]], np.array([value, value], np.float64))
