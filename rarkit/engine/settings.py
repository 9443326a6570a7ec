"""The recipe's ``[train]`` table. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, final

from pydantic import Field, PositiveFloat, field_serializer, field_validator, model_validator

from rarkit.registry.bounds import Batch, Rate, RateOrZero, Step, Steps
from rarkit.registry.component import Location, NotInFingerprint, Seed, Settings

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Precision = Literal["auto", "float32", "bfloat16"]


@final
class TrainSettings(Settings):
    """``[train]``: next-token training with AdamW, linear warm-up and cosine decay, on randomly permuted token sequences."""

    steps: Steps
    """Number of optimizer steps."""
    batch_size: Batch
    """Images per step, over all processes together."""
    seed: Seed | None = None
    """Seed of the initial weights, and of batches, permutations and dropout. Defaults to the recipe's ``seed``."""
    tokens: Annotated[Location | None, NotInFingerprint()] = None
    """Token store written by ``rarkit tokens import``, to train on instead of encoding the dataset."""
    micro_batch_size: Annotated[Batch | None, NotInFingerprint(tolerance=1e-3)] = None
    """Images per forward and backward pass; gradients are accumulated over ``batch_size``. Defaults to the whole batch. On the CPU
    the result is the same within rounding; on a GPU other dropout masks are drawn, unless the attention backend and the model seed
    them."""
    learning_rate: Rate = 4e-4
    """Peak learning rate, reached at the end of the warm-up."""
    end_learning_rate: RateOrZero = 1e-5
    """Learning rate at the last step."""
    warmup_steps: Step = 0
    """Steps over which the learning rate rises linearly from 0."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.96)
    """Decay rates of AdamW's moments."""
    weight_decay: RateOrZero = 0.03
    """Weight decay of matrices; biases, norms, embeddings and positional tables are not decayed."""
    gradient_clip: Annotated[PositiveFloat, Field(allow_inf_nan=True)] | None = 1.0
    """Maximum norm of the gradient; larger gradients are scaled down to it. ``inf`` leaves them as they are."""
    precision: Precision = "auto"
    """Autocast dtype of the forward pass; weights and optimizer state stay in float32. ``"auto"`` is bfloat16 if the device has
    instructions for it, else float32; a training that goes on elsewhere keeps what it began with."""
    compile: Annotated[bool, NotInFingerprint(tolerance=1e-3)] = False
    """Compile the model with ``torch.compile``."""
    activation_checkpointing: Annotated[bool, NotInFingerprint()] = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    checkpoint_every: Annotated[Steps, NotInFingerprint()] = 1000
    """Steps between checkpoints; an interrupted training resumes from the last one with bit-identical results."""
    checkpoint_minutes: Annotated[Rate, NotInFingerprint()] = 5.0
    """Minutes after which a checkpoint is written even if ``checkpoint_every`` steps have not passed."""

    @field_validator("gradient_clip")
    @classmethod
    def _without_bound(cls, norm: float | None) -> float | None:
        return None if norm == math.inf else norm

    @field_serializer("gradient_clip", when_used="json")
    def _bound(self, norm: float | None) -> float | str:
        # TOML has no null, and JSON no infinity; both are read back.
        return "inf" if norm is None else norm

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size}")
        return self
