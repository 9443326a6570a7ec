"""What a checkpoint of a training keeps besides tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from rarkit.engine.settings import TrainSettings
from rarkit.errors import IncompleteError

Word = Annotated[str, Field(min_length=1, max_length=100)]
Count = Annotated[int, Field(ge=1, le=2**32)]


@final
class Facts(BaseModel):
    """How a training was divided and computed when it was saved."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: Literal["float32", "bfloat16"]
    micro_batch_size: Count
    """Samples of a pass: resolved once, and kept where the number of processes allows."""
    processes: Count
    columns: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Of the log, in order; the values are tensors of the checkpoint."""
    measured: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Columns of what was measured of held-out samples, likewise."""
    measurements: Annotated[int, Field(ge=0, le=2**32)] = 0
    """Their rows."""


def facts_of(stored: Mapping[str, JsonValue], step: int, settings: TrainSettings, where: Any) -> Facts:
    """The facts of a checkpoint of a step, from which a training of these settings goes on.

    Raises:
        IncompleteError: they are none that a training wrote.
    """
    try:
        if step > settings.steps:
            raise ValueError(f"step {step:,} of {settings.steps:,}")
        return Facts.model_validate(stored)
    except ValueError as error:
        raise IncompleteError(f"the checkpoint of {where} is of another training. {where.cure}") from error
