"""What a training ends with, and what a part notes beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, final

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

VALUE = "{value}"
"""Stands in the sentence of a note in the place of its number."""
Words = Annotated[str, Field(min_length=1, max_length=1000)]


@final
@dataclass(frozen=True)
class Trained:
    """What a training ends with."""

    weights: Mapping[str, Mapping[str, Tensor]]
    """The state dict of each network, on the CPU: its averaged weights, if the settings ask for an average; those with the lowest
    error of held-out samples, if ``best_every`` asked for that."""
    log: Mapping[str, NDArray[Any]]
    """Columns by name, a row for each step: ``step`` int64, the others float64."""
    precision: str
    """Autocast's dtype."""
    measured: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Means over the held-out samples, by name (``held_out_error`` and so on, float64), and ``step`` (int64), the steps taken by
    then: a row for each measurement. Empty if there was none."""
    best_step: int | None = None
    """The steps that the weights were trained for, where ``best_every`` chose them."""


@final
class Note(BaseModel):
    """A number that a part notes when it learns, for the report of the run."""

    model_config = ConfigDict(strict=True, frozen=True)

    name: Words
    value: Annotated[float, Field(allow_inf_nan=False)]
    sentence: Words
    """What it is, in a sentence, with its unit and ``{value}``."""
    beside: Words | None = None
    """The column of the training's log, or of what was measured (``held_out_psnr``), in whose chart it is drawn as a line."""
