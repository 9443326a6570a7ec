"""The recipe's ``[train]`` table. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self, final

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from rarkit.registry.component import Location, NotInFingerprint, Settings

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Precision = Literal["float32", "bfloat16"]


@final
class TrainSettings(Settings):
    """``[train]``: AdamW with linear warm-up and half a cosine down, on randomly permuted token sequences."""

    steps: PositiveInt
    """Optimizer steps."""
    batch_size: PositiveInt
    """Images for each step, over all processes together."""
    tokens: Annotated[Location | None, NotInFingerprint()] = None
    """Tokens to train on that ``rarkit tokens import`` left, instead of the dataset's own, encoded here."""
    micro_batch_size: Annotated[PositiveInt | None, NotInFingerprint(tolerance=1e-3)] = None
    """Images for each forward and backward pass; the gradient of a step is accumulated over them. All at once unless given."""
    learning_rate: PositiveFloat = 4e-4
    """Highest learning rate, reached at the end of the warm-up."""
    end_learning_rate: Annotated[float, Field(ge=0.0)] = 1e-5
    """Learning rate at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.96)
    """AdamW's decay rates."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.03
    """Applied to matrices, not to biases, norms, embeddings and positional tables."""
    gradient_clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient."""
    precision: Precision = "bfloat16"
    """Autocast type of the forward pass; weights and optimizer stay in float32."""
    compile: Annotated[bool, NotInFingerprint(tolerance=1e-3)] = False
    """Whether to run the model through ``torch.compile``."""
    activation_checkpointing: Annotated[bool, NotInFingerprint()] = False
    """Recompute each block in the backward pass: less memory, about a third more time."""
    checkpoint_every: Annotated[PositiveInt, NotInFingerprint()] = 1000
    """Steps between checkpoints; an interrupted training goes on from the last one, to the same bits."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size}")
        return self
