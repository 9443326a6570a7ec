"""The tables of a recipe that are not parts: model, train, sample, evaluate."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Literal, Self, final

from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

from rarkit.features.base import FeatureExtractor
from rarkit.features.classifier import Classifier
from rarkit.registry.component import Location, NotInFingerprint, Settings
from rarkit.sampling.guidance import Constant, Guidance
from rarkit.files.weights import checksum

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Precision = Literal["float32", "bfloat16"]
SamplingPrecision = Literal["float32", "bfloat16", "int8"]
CachePrecision = Literal["same", "float8"]
PresetName = Literal["rar_b", "rar_l", "rar_xl", "rar_xxl"]


@final
class ModelSettings(Settings):
    """``[model]``: the transformer's size, either a preset or the four sizes, and where its weights come from."""

    preset: PresetName | None = None
    """One of the paper's sizes; then the four sizes below are left out."""
    hidden_size: PositiveInt | None = None
    """Width of the transformer; divisible by ``num_heads``."""
    depth: PositiveInt | None = None
    """Number of blocks."""
    num_heads: PositiveInt | None = None
    """Attention heads in each block."""
    mlp_hidden_size: PositiveInt | None = None
    """Width inside the MLP; four times ``hidden_size`` unless given."""
    dropout: Fraction = 0.1
    """Dropout after attention and MLP, in training."""
    attention_dropout: Fraction = 0.1
    """Dropout of attention weights, in training."""
    class_dropout: Fraction = 0.1
    """How often a training sample's class is replaced by "no class"; guidance needs it."""
    weights: Annotated[Location | None, NotInFingerprint()] = None
    """A released or exported checkpoint; with it there is no ``[train]``, and sampling starts from these weights."""

    def content(self) -> str | None:
        return None if self.weights is None else checksum(self.weights)

    @model_validator(mode="after")
    def _one_way_to_say_the_size(self) -> Self:
        sizes = {name: getattr(self, name) for name in ("hidden_size", "depth", "num_heads")}
        if self.preset is not None:
            given = [name for name in (*sizes, "mlp_hidden_size") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"preset = {self.preset!r} already sets {', '.join(given)}: leave out one or the other")
        else:
            missing = [name for name, value in sizes.items() if value is None]
            if missing:
                raise ValueError(f"{', '.join(missing)} missing: give preset, or hidden_size, depth and num_heads")
            if sizes["hidden_size"] % sizes["num_heads"]:
                raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        return self


@final
class TrainSettings(Settings):
    """``[train]``: AdamW with linear warm-up and half a cosine down, on randomly permuted token sequences."""

    steps: PositiveInt
    """Optimizer steps."""
    batch_size: PositiveInt
    """Images for each step, over all processes together."""
    tokens: Annotated[Location | None, NotInFingerprint()] = None
    """Tokens to train on that ``rarkit tokens import`` left, instead of the dataset's own, encoded here."""
    micro_batch_size: Annotated[PositiveInt | None, NotInFingerprint()] = None
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
    compile: Annotated[bool, NotInFingerprint()] = False
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


@final
class SampleSettings(Settings):
    """``[sample]``: how many images of each class, and how tokens are drawn."""

    per_class: PositiveInt = 50
    """Images for each class."""
    classes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Labels of the classes to draw, each once; all of them unless given."""
    guidance: Guidance = Constant()
    """Classifier-free guidance over the steps of the sequence."""
    temperature: PositiveFloat = 1.0
    """Logits are divided by it."""
    top_k: PositiveInt | None = None
    """Draw from the k likeliest tokens only."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Draw from the likeliest tokens that together reach this probability."""
    precision: SamplingPrecision = "float32"
    """Type of weights and cache while sampling; int8, on a CPU alone, is of the blocks' projections, and all else bfloat16."""
    kv_cache: CachePrecision = "same"
    """Type of the KV cache: the same as the weights', or float8 (e4m3), which takes half the memory of bfloat16."""
    batch_size: Annotated[PositiveInt, NotInFingerprint()] = 64
    """Images drawn at a time; the samples do not depend on it."""
    npz: Annotated[bool, NotInFingerprint()] = False
    """Whether to write ``samples.npz`` (``arr_0``, uint8 NHWC), which the ADM evaluator reads."""


class EvaluateSettings(Settings, ABC):
    """``[evaluate]``: in which features samples are compared with real images."""

    features: SerializeAsAny[FeatureExtractor] = Classifier()
    """The feature extractor; a table with ``name``."""
    yardsticks: bool = True
    """Whether held-out images, reconstructions and uniform tokens are measured too, and the model's bits per token on them.

    They need the dataset's images; without, and with an extractor that brings its own reference, no data is needed."""
    bootstrap: Annotated[int, Field(ge=0)] = 100
    """Resamplings behind each interval (5 % to 95 %); 0 for none."""
    batch_size: Annotated[PositiveInt, NotInFingerprint()] = 256
    """Images that go through the feature extractor at a time."""
