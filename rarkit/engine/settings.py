"""The recipe's ``[train]`` table. Imports no torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self, final

from pydantic import Field, PositiveFloat, field_serializer, field_validator, model_validator

from rarkit.registry.bounds import Batch, Images, Rate, RateOrZero, Step, Steps
from rarkit.registry.component import Location, NotInFingerprint, Seed, Settings

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Kept = Annotated[int, Field(ge=1, le=10**4)]
Orders = Annotated[int, Field(ge=1, le=1000)]
Degree = Annotated[int, Field(ge=1, le=2**16)]
Every = Annotated[int, Field(ge=1, le=2**16)]
Precision = Literal["auto", "float32", "bfloat16"]
LearningRateSchedule = Literal["cosine", "constant", "wsd"]


@final
class TrainSettings(Settings):
    """``[train]``: next-token training on randomly permuted token sequences."""

    steps: Steps
    """Number of optimizer steps."""
    batch_size: Batch
    """Images per step, over all processes together."""
    seed: Seed | None = None
    """Seed of the initial weights, and of batches, permutations and dropout. Defaults to the recipe's ``seed``."""
    tokens: Annotated[Location | None, NotInFingerprint()] = None
    """Token store written by ``rarkit tokens import``, to train on instead of encoding the dataset."""
    init_from: Annotated[Location | None, NotInFingerprint()] = None
    """Weights to start from instead of random ones: a run (its folder, or its name under ``runs/``), an output of stage ``train``
    in a store, a bundle, or a released or exported checkpoint. They are adapted to other classes and another grid."""
    micro_batch_size: Annotated[Batch | None, NotInFingerprint(tolerance=1e-3)] = None
    """Images per forward and backward pass of a process; gradients are accumulated over its share of ``batch_size``. Defaults to
    the whole share on a CPU, and to what the memory holds on a GPU, where other dropout masks are drawn for another one."""
    learning_rate: Rate = 4e-4
    """Peak learning rate, reached at the end of the warm-up."""
    end_learning_rate: RateOrZero = 1e-5
    """Learning rate at the last step, unless it is constant."""
    learning_rate_schedule: LearningRateSchedule = "cosine"
    """What follows the warm-up: ``"cosine"`` falls over all of training; ``"constant"`` stays at the peak; ``"wsd"`` (warm-up,
    stable, decay) stays there, and falls as 1 − √progress over the last ``decay_steps``."""
    decay_steps: Steps | None = None
    """Steps over which ``"wsd"`` falls to ``end_learning_rate``."""
    warmup_steps: Step = 0
    """Steps over which the learning rate rises linearly from 0."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """``"muon"`` trains the matrices inside the blocks with Muon, and the rest with AdamW."""
    muon_learning_rate: Rate | None = None
    """Peak learning rate of Muon, which rises and falls as AdamW's does. Defaults to ``learning_rate``, because updates of both are
    of one size."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.96)
    """Decay rates of AdamW's moments."""
    weight_decay: RateOrZero = 0.03
    """Weight decay of matrices; biases, norms, embeddings and positional tables are not decayed."""
    gradient_clip: Annotated[PositiveFloat, Field(allow_inf_nan=True)] | None = 1.0
    """Maximum norm of the gradient; larger gradients are scaled down to it. ``inf`` leaves them as they are."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Keep an exponential moving average of the weights with this decay, 0.9999 for example; it becomes the trained model. Early in
    training the decay is smaller: at most (1 + step) / (10 + step)."""
    precision: Precision = "auto"
    """Autocast dtype of the forward pass; weights and optimizer state stay in float32. ``"auto"`` is bfloat16 if the device has
    instructions for it, else float32; a training that goes on elsewhere keeps what it began with."""
    compile: Annotated[bool, NotInFingerprint(tolerance=1e-3)] = False
    """Compile the model with ``torch.compile``."""
    activation_checkpointing: Annotated[bool | Every, NotInFingerprint()] = False
    """Recompute blocks in the backward pass, every one (``true``) or every n-th (n): less memory, for all blocks about a third more
    time."""
    data_parallel: Annotated[Literal["ddp", "fsdp"], NotInFingerprint(tolerance=1e-3)] = "ddp"
    """With several processes: ``"ddp"`` gives each all weights; ``"fsdp"`` (FSDP2) shards weights, gradients and optimizer
    state."""
    shard: Annotated[Degree | None, NotInFingerprint(tolerance=1e-3)] = None
    """With ``"fsdp"``, the processes that hold one copy of the weights among them. Defaults to all, divided by ``replicate``."""
    replicate: Annotated[Degree | None, NotInFingerprint(tolerance=1e-3)] = None
    """With ``"fsdp"``, the copies of the weights (HSDP): replicate × shard processes. Defaults to one."""
    reshard_after_forward: Annotated[bool, NotInFingerprint(tolerance=1e-3)] = True
    """With ``"fsdp"``, free a block's gathered weights after its forward pass, and gather them again in the backward pass: less
    memory, more traffic."""
    checkpoint_every: Annotated[Steps, NotInFingerprint()] = 1000
    """Steps between checkpoints; an interrupted training resumes from the last one with bit-identical results."""
    checkpoint_minutes: Annotated[Rate, NotInFingerprint()] = 5.0
    """Minutes after which a checkpoint is written even if ``checkpoint_every`` steps have not passed."""
    keep_checkpoints: Annotated[Kept, NotInFingerprint()] = 1
    """Checkpoints kept while it trains: the last ones. All but those of ``keep_every`` are removed at its end."""
    keep_every: Annotated[Steps | None, NotInFingerprint()] = None
    """Also write checkpoints every so many steps, and keep them beside the trained model."""
    evaluate_every: Annotated[Steps | None, NotInFingerprint()] = None
    """Steps between measurements of the bits per token of held-out images: along the scan order, and along random orders if the
    training has some. They go to ``log.jsonl``, the report and trackers, and decide nothing."""
    evaluate_images: Annotated[Images, NotInFingerprint()] = 256
    """Held-out images that ``evaluate_every`` measures, drawn once from all."""
    evaluate_orders: Annotated[Orders, NotInFingerprint()] = 4
    """Random orders of each image that ``evaluate_every`` averages over."""
    preview_every: Annotated[Steps | None, NotInFingerprint()] = None
    """Steps between pictures of 16 samples, drawn as ``[sample]`` says, in ``runs/<recipe>/previews/``."""

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
            raise ValueError(f"warmup_steps {self.warmup_steps} is more than steps {self.steps}: lower it, or raise steps")
        self._check_schedule()
        if self.muon_learning_rate is not None and self.optimizer != "muon":
            raise ValueError('muon_learning_rate needs optimizer = "muon": set that, or remove muon_learning_rate')
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size}: set that to a "
                "divisor, or leave it out"
            )
        if self.data_parallel == "ddp" and (self.shard or self.replicate):
            raise ValueError('shard and replicate need data_parallel = "fsdp": set that, or remove them')
        return self

    def _check_schedule(self) -> None:
        if self.learning_rate_schedule != "constant" and self.end_learning_rate > self.learning_rate:
            raise ValueError(
                f"end_learning_rate {self.end_learning_rate:g} is more than learning_rate {self.learning_rate:g}: lower it, to "
                f"{self.learning_rate / 40:g} say"
            )
        if self.learning_rate_schedule != "wsd":
            if self.decay_steps is not None:
                raise ValueError('decay_steps needs learning_rate_schedule = "wsd": set that, or remove decay_steps')
            return
        if self.decay_steps is None:
            raise ValueError(f'learning_rate_schedule = "wsd" needs decay_steps: set it to {max(1, self.steps // 5)}, say')
        if self.warmup_steps + self.decay_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and decay_steps {self.decay_steps} are more than steps {self.steps}: lower one "
                "of them, or raise steps"
            )
