"""Model families: how tokens become logits. The contract between a family and training, sampling, estimates and export.

A family is light: sizes and costs are arithmetic, and torch is imported only to create or load a model, whose contract is in
``rarkit.models.image_model``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, final

from pydantic import Field

from rarkit.errors import CapabilityError, RecipeError
from rarkit.files.tensor_mismatches import check_tensors
from rarkit.files.weights import checksum
from rarkit.models.adaptation import Adapted, GivenWeights
from rarkit.models.config import ModelConfig
from rarkit.models.exported import TransformersModel
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.linear import Linear
from rarkit.registry.component import Component, Location, NotInFingerprint
from rarkit.registry.contract import broken, checked

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
    """Memory of training on one GPU, by use."""

    weights: int
    gradients: int
    optimizer: int
    """Two moments of AdamW, one of Muon."""
    casts: int
    """Copies of the matrices in autocast's dtype."""
    activations: int
    """Saved by the forward pass for the backward pass of one micro-batch."""
    average: int = 0
    """The moving average of the weights."""
    best: int = 0
    """The weights with the lowest error so far, where a part that learns keeps them."""
    gathered: int = 0
    """With sharded weights, what a process has of them beyond its share while it computes."""

    @property
    def persistent(self) -> int:
        """The part that does not depend on the micro-batch."""
        return self.weights + self.gradients + self.optimizer + self.casts + self.average + self.best + self.gathered

    @property
    def total(self) -> int:
        return self.persistent + self.activations

    @property
    def uses(self) -> dict[str, int]:
        """The bytes of each use that takes any, in the order in which they are shown."""
        names = ("weights", "gradients", "optimizer", "casts", "gathered", "average", "best", "activations")
        return {name: held for name in names if (held := getattr(self, name))}


@final
@dataclass(frozen=True)
class SamplingBytes:
    """Memory of decoding one batch, by use."""

    weights: int
    kv_cache: int
    """Keys and values of all entries and blocks."""
    modulations: int
    """Tables of values that depend only on class and step."""
    logits: int
    """Logits, and the sampling distribution in float64."""
    workspace: int
    """Temporary memory of one step."""
    laid_out: int
    """Copies of weights in the layout for decoding, in addition to the model."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.modulations + self.logits + self.workspace + self.laid_out


class TrainingCosts(ABC):
    """The compute and memory of a training."""

    @abstractmethod
    def step_flops(self, batch_size: int, *, checkpointing: int) -> int:
        """FLOPs of a step of one pass: forwards, twice that backwards, and recomputation.

        Args:
            batch_size: images of the pass.
            checkpointing: every block (1) or every n-th (n) is recomputed; 0 for none.
        """

    @abstractmethod
    def training_bytes(self, *, micro_batch: int, precision: str, checkpointing: int, keeps_weights: bool) -> TrainingBytes:
        """Memory of eager training with fused AdamW and float32 weights, in one process.

        Args:
            micro_batch: images per forward and backward pass.
            precision: autocast's dtype, or ``"float32"``.
            checkpointing: of every block (1) or every n-th (n), only the input is saved; 0 for none.
            keeps_weights: whether attention saves all its weights for the backward pass.
        """

    def hidden_weights(self) -> int:
        """Weights of the matrices that Muon trains, of which it has one moment, not two; 0 where that is unknown."""
        return 0

    def blocks(self) -> tuple[int, int]:
        """The number of ``ImageModel.repeated``, which FSDP gathers one by one, and the weights of one; (0, 0) if there is none."""
        return 0, 0


class ModelCosts(TrainingCosts):
    """The compute and memory of a model, by arithmetic; without torch, because planning uses it."""

    @abstractmethod
    def sampling_flops(self, *, batch: int, classes: int, guided_steps: int) -> int:
        """Multiplications and additions of decoding one batch with this number of distinct classes."""

    @abstractmethod
    def sampling_traffic(self, *, batch: int, guided_steps: int, precision: str) -> int:
        """Minimum bytes that decoding one batch reads: the weights at each step, and the filled cache."""

    @abstractmethod
    def sampling_bytes(self, *, batch: int, guided: bool, precision: str, kv_cache: str, on_cpu: bool) -> SamplingBytes:
        """Memory of decoding one batch.

        Args:
            batch: images per batch.
            guided: whether the unconditional branch is also computed.
            precision: a key of ``rarkit.sampling.precision.MODEL_DTYPES``.
            kv_cache: ``"same"`` or ``"float8"``.
            on_cpu: whether it decodes on a CPU, with its fastest decoder.
        """


class ModelFamily(Component):
    """The part behind ``[model]``: sizes, weights, and how to create a model."""

    kind: ClassVar[str] = "models"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    class_dropout: Fraction = 0.1
    """Probability that a training sample's class is replaced by "no class", which guidance requires."""
    weights: Annotated[Location | None, NotInFingerprint()] = None
    """A checkpoint to sample from: released, exported, or of a training script. The recipe then has no ``[train]``."""

    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16")
    """The supported values of ``sample.precision``."""
    kv_caches: ClassVar[tuple[str, ...]] = ("same",)
    """The supported values of ``sample.kv_cache``."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, config=_checked_config)

    @abstractmethod
    def config(self, *, grid: tuple[int, int], codebook_size: int, num_classes: int) -> ModelConfig:
        """The model's configuration for a token grid (height, width), codebook and number of classes."""

    @abstractmethod
    def costs(self, config: ModelConfig) -> ModelCosts:
        """The compute and memory of a model with this configuration."""

    @abstractmethod
    def create(self, config: ModelConfig, attention: AttentionFunction, seed: int) -> ImageModel:
        """A new model on torch's default device. The weights are drawn from the seed and are the same on every device."""

    def restore(self, config: ModelConfig, attention: AttentionFunction, tensors: Mapping[str, Tensor]) -> ImageModel:
        """A model with a copy of these weights, on torch's default device.

        Raises:
            RuntimeError: names or shapes do not match.
        """
        model = self.create(config, attention, 0)
        model.load_state_dict(tensors)
        return model

    def load(
        self,
        path: str,
        config: ModelConfig,
        attention: AttentionFunction,
        *,
        device: str | torch.device,
        dtype: torch.dtype | None,
    ) -> ImageModel:
        """A model with the weights of a checkpoint file (a path or fsspec URL), in eval mode.

        Raises:
            WeightsError: the file is missing, damaged, or does not fit the configuration.
        """
        from rarkit.models.checkpoints import load_into

        return load_into(lambda: self.create(config, attention, 0), config, path, device=device, dtype=dtype)

    def adapted(self, config: ModelConfig, grid: tuple[int, int], given: GivenWeights, new: Mapping[str, Tensor]) -> Adapted:
        """Other weights as the start of a training of this model. Unless a family adapts them, they must have its shapes.

        Args:
            config: the new model's configuration.
            grid: height and width of its token grid.
            given: the weights, which must not be changed.
            new: the state dict of the new model, as ``create`` initialised it: for what the given weights lack. On the meta device,
                where all tensors are, only shapes and ``changes`` count.

        Returns:
            Tensors with the names and shapes of ``new``, and what was changed.

        Raises:
            WeightsError: they are of another model.
        """
        check_tensors(given.place, "model", new, given.tensors, lambda different: "Start from weights of a model like this one.")
        others = f"the classes of {given.place} are others, whose weights are kept as they are"
        return Adapted({name: given.tensors[name] for name in new}, (others,) if given.same_classes is False else ())

    def for_transformers(self, config: ModelConfig, order: Sequence[int]) -> TransformersModel | None:
        """How Hugging Face transformers runs a model along one order; None if rarkit has no code for that.

        The weights are those of the model, after ``merge_positions`` if the model has it.
        """
        return None

    @property
    @abstractmethod
    def dropped(self) -> dict[str, float]:
        """Dropout probabilities in training, by setting; that of attention weights is called ``attention_dropout``."""

    def default_schedule(self) -> PermutationSchedule:
        """The permutation schedule of recipes without ``[permutation_schedule]``."""
        return Linear()

    def check_schedule(self, schedule: PermutationSchedule) -> None:
        """Raises RecipeError if the family cannot be trained with this schedule."""

    def content(self) -> Any:
        return None if self.weights is None else checksum(self.weights)

    def rehearsed(self) -> Self:
        return self.model_copy(update={"weights": None})

    @final
    def check_sampling(self, precision: str, kv_cache: str) -> None:
        """Raises CapabilityError if the family cannot be sampled with these settings."""
        for setting, value, known in (("precision", precision, self.precisions), ("kv_cache", kv_cache, self.kv_caches)):
            if value not in known:
                choices = " or ".join(map(repr, known))
                raise CapabilityError(f"model {self.name!r} does not support sample.{setting} = {value!r}: set it to {choices}")


def refuse_permutations(name: str, schedule: PermutationSchedule) -> None:
    """For families that train only along the scan order: raises RecipeError unless the random ratio is 0 throughout."""
    if any(schedule.random_ratio(step, CHECKED_STEPS) > 0 for step in range(CHECKED_STEPS + 1)):
        raise RecipeError(
            f"model {name!r} trains only along its scan order, but permutation schedule {schedule.name!r} permutes at random: "
            'remove [permutation_schedule], or set it to { name = "constant", ratio = 0.0 }'
        )


def _checked_config(
    part: ModelFamily, config: Callable[..., Any], *, grid: tuple[int, int], codebook_size: int, num_classes: int
) -> ModelConfig:
    made = config(grid=grid, codebook_size=codebook_size, num_classes=num_classes)
    if not isinstance(made, ModelConfig):
        raise broken(part, f"returns {type(made).__name__} from config; it must return a ModelConfig")
    promised = {"seq_len": grid[0] * grid[1], "codebook_size": codebook_size, "num_classes": num_classes}
    for name, value in promised.items():
        if getattr(made, name) != value:
            raise broken(part, f"has {name} = {getattr(made, name)} in its config; for these images it must be {value}")
    return made
