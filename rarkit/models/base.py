"""Model families: how tokens become logits. What training, sampling, the estimate and export ask of one.

A family is light: sizes and costs are arithmetic, and torch is imported only to make or load a model
(``rarkit.models.image_model`` says what that must do).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from pydantic import Field

from rarkit.errors import CapabilityError, RecipeError
from rarkit.files.weights import checksum
from rarkit.models.config import ModelConfig
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.linear import Linear
from rarkit.registry.component import Component, Location, NotInFingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rarkit.attention.base import AttentionFunction
    from rarkit.models.image_model import ImageModel

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
CHECKED_STEPS = 1000


@final
@dataclass(frozen=True)
class TrainingBytes:
    """Memory of training on one GPU, by what takes it."""

    weights: int
    gradients: int
    optimizer: int
    """AdamW's two moments."""
    casts: int
    """The matrices once more, in autocast's type."""
    activations: int
    """What the forward pass keeps for the backward pass of one micro-batch."""

    @property
    def persistent(self) -> int:
        """What does not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer + self.casts

    @property
    def total(self) -> int:
        return self.persistent + self.activations


@final
@dataclass(frozen=True)
class SamplingBytes:
    """Memory of decoding one batch, by what takes it."""

    weights: int
    kv_cache: int
    """Keys and values of all entries and blocks."""
    modulations: int
    """Tables of what depends on class and step alone."""
    logits: int
    """Logits, and the distribution drawn from, in float64."""
    workspace: int
    """What one step needs besides."""
    laid_out: int
    """Copies of weights in the layout that decoding reads, beside the model."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.modulations + self.logits + self.workspace + self.laid_out


class ModelCosts(ABC):
    """What a model takes, by arithmetic: no torch, since planning asks."""

    @abstractmethod
    def step_flops(self, batch_size: int, *, checkpointing: bool) -> int:
        """FLOPs of one optimizer step: forward, twice that backward, and what activation checkpointing computes again."""

    @abstractmethod
    def training_bytes(self, *, micro_batch: int, precision: str, checkpointing: bool, keeps_weights: bool) -> TrainingBytes:
        """Memory of training, eager, with fused AdamW and weights in float32.

        Args:
            micro_batch: images for each forward and backward pass.
            precision: autocast's type, or ``"float32"``.
            checkpointing: whether only the blocks' inputs are kept.
            keeps_weights: whether the attention keeps all its weights for the backward pass.
        """

    @abstractmethod
    def sampling_flops(self, *, batch: int, classes: int, guided_steps: int) -> int:
        """Multiplications and additions of decoding one batch with so many distinct classes."""

    @abstractmethod
    def sampling_traffic(self, *, batch: int, guided_steps: int, precision: str) -> int:
        """Bytes that decoding one batch reads at the least: weights at each step, and the filled cache."""

    @abstractmethod
    def sampling_bytes(self, *, batch: int, guided: bool, precision: str, kv_cache: str, on_cpu: bool) -> SamplingBytes:
        """Memory of decoding one batch.

        Args:
            batch: images at a time.
            guided: whether the unconditional branch is computed too.
            precision: a key of ``rarkit.sampling.precision.MODEL_DTYPES``.
            kv_cache: ``"same"`` or ``"float8"``.
            on_cpu: whether a CPU decodes, as fast as it can here.
        """


class ModelFamily(Component):
    """The part behind ``[model]``: sizes, weights, and how to make a model of them."""

    kind: ClassVar[str] = "models"
    class_dropout: Fraction = 0.1
    """How often a training sample's class is replaced by "no class"; guidance needs it."""
    weights: Annotated[Location | None, NotInFingerprint()] = None
    """A released or exported checkpoint; with it there is no ``[train]``, and sampling starts from these weights."""

    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    """What it can be sampled in; see ``sample.precision``."""
    kv_caches: ClassVar[tuple[str, ...]] = ("same",)
    """What its KV cache can be kept in; see ``sample.kv_cache``."""

    @abstractmethod
    def config(self, *, grid: tuple[int, int], codebook_size: int, num_classes: int) -> ModelConfig:
        """The model's sizes for images of such grids of tokens (height, width)."""

    @abstractmethod
    def costs(self, config: ModelConfig) -> ModelCosts:
        """What a model of these sizes takes."""

    @abstractmethod
    def create(self, config: ModelConfig, attention: AttentionFunction, seed: int) -> ImageModel:
        """A new model on torch's default device, its weights drawn from the seed: the same on every device."""

    @abstractmethod
    def restore(self, config: ModelConfig, attention: AttentionFunction, tensors: Mapping[str, Tensor]) -> ImageModel:
        """The model with a copy of these weights, on torch's default device.

        Raises:
            RuntimeError: names or shapes do not fit.
        """

    @abstractmethod
    def load(
        self,
        path: str,
        config: ModelConfig,
        attention: AttentionFunction,
        *,
        device: str | torch.device,
        dtype: torch.dtype | None,
    ) -> ImageModel:
        """The model from a checkpoint file (a path or any fsspec URL), in eval mode.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the sizes.
        """

    @property
    @abstractmethod
    def dropped(self) -> dict[str, float]:
        """Dropout probabilities in training by the setting's name; ``attention_dropout`` is that of attention weights."""

    def default_schedule(self) -> PermutationSchedule:
        """The permutation schedule of recipes that name none."""
        return Linear()

    def check_schedule(self, schedule: PermutationSchedule) -> None:
        """Raises RecipeError if the family cannot be trained along such permutations."""

    def content(self) -> Any:
        return None if self.weights is None else checksum(self.weights)

    @final
    def check_sampling(self, precision: str, kv_cache: str) -> None:
        """Raises CapabilityError unless the family can be sampled so."""
        for setting, value, known in (("precision", precision, self.precisions), ("kv_cache", kv_cache, self.kv_caches)):
            if value not in known:
                choices = " or ".join(map(repr, known))
                raise CapabilityError(
                    f"model {self.name!r} cannot be sampled with sample.{setting} = {value!r}: set it to {choices}"
                )


def refuse_permutations(name: str, schedule: PermutationSchedule) -> None:
    """For families that are trained along the scan order alone: raises RecipeError unless the random ratio is 0 throughout."""
    if any(schedule.random_ratio(step, CHECKED_STEPS) > 0 for step in range(CHECKED_STEPS + 1)):
        raise RecipeError(
            f"model {name!r} is trained along its scan order alone, and permutation schedule {schedule.name!r} permutes at random: "
            'leave out [permutation_schedule], or set it to { name = "constant", ratio = 0.0 }'
        )
