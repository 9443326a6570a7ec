"""The model family ``rar``: the ``[model]`` table of a randomized autoregressive model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

from pydantic import model_validator

from rarkit.models.adaptation import Adapted, GivenWeights
from rarkit.models.base import Fraction, ModelCosts, ModelFamily, SamplingBytes, TrainingBytes
from rarkit.models.config import ModelConfig
from rarkit.models.exported import TransformersModel
from rarkit.models.rar import sampling_costs, training_costs
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.sizes import PRESETS
from rarkit.registry.bounds import Depth, Hidden, Width
from rarkit.runtime.machine import emulates_bfloat16, sums_bfloat16_apart

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rarkit.attention.base import AttentionFunction
    from rarkit.models.image_model import ImageModel

PresetName = Literal["rar_b", "rar_l", "rar_xl", "rar_xxl"]
HEAD_SIZE, DEPTH = 16, 2
"""Head width and number of blocks of a rehearsal's model."""


@final
class RARFamily(ModelFamily):
    """RAR (arXiv 2411.00776): a transformer with adaptive layer norms, trained in randomly permuted order.

    The size is a preset, or given by the sizes below. ``target_aware`` and ``conditioning`` are for the paper's comparisons.
    """

    name: Literal["rar"] = "rar"
    preset: PresetName | None = None
    """One of the paper's sizes. Set either this or the sizes below."""
    hidden_size: Width | None = None
    """Width of the transformer; divisible by ``num_heads``."""
    depth: Depth | None = None
    """Number of blocks."""
    num_heads: Width | None = None
    """Attention heads per block."""
    mlp_hidden_size: Hidden | None = None
    """Width inside the MLP. Defaults to four times ``hidden_size``."""
    dropout: Fraction = 0.1
    """Dropout after attention and MLP during training."""
    attention_dropout: Fraction = 0.1
    """Dropout of attention weights during training."""
    target_aware: bool = True
    """Whether the model is given the position it predicts next (RAR, section 3.3). Random permutations help only with it."""
    conditioning: Literal["adaln", "prefix"] = "adaln"
    """How the blocks get the class: ``"adaln"`` as a token and through adaptive layer norms, ``"prefix"`` only as a token."""

    precisions: ClassVar[tuple[str, ...]] = ("float32", "bfloat16", "int8")
    kv_caches: ClassVar[tuple[str, ...]] = ("same", "float8")

    def config(self, *, grid: tuple[int, int], codebook_size: int, num_classes: int) -> RARConfig:
        decided: dict[str, Any] = {"seq_len": grid[0] * grid[1], "codebook_size": codebook_size, "num_classes": num_classes}
        for setting in ("dropout", "attention_dropout", "class_dropout", "target_aware", "conditioning"):
            decided[setting] = getattr(self, setting)
        if self.preset is not None:
            return PRESETS[self.preset].model_copy(update=decided)
        width = self.hidden_size or 0
        sizes = {"hidden_size": width, "depth": self.depth, "num_heads": self.num_heads}
        return RARConfig.model_validate({**sizes, "mlp_hidden_size": self.mlp_hidden_size or 4 * width, **decided})

    def costs(self, config: ModelConfig) -> ModelCosts:
        return RARCosts(_own(config))

    def create(self, config: ModelConfig, attention: AttentionFunction, seed: int) -> ImageModel:
        from rarkit.models.rar.rar import RAR

        return RAR(_own(config), attention, seed=seed)

    def restore(self, config: ModelConfig, attention: AttentionFunction, tensors: Mapping[str, Tensor]) -> ImageModel:
        from rarkit.models.rar.merged import MergedRAR
        from rarkit.models.rar.rar import RAR

        merged = "scan_pos_embed" in tensors
        model = MergedRAR(_own(config), attention) if merged else RAR(_own(config), attention, seed=None)
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
        from rarkit.models.rar.checkpoints import load_rar

        return load_rar(path, _own(config), attention=attention, device=device, dtype=dtype)

    def adapted(self, config: ModelConfig, grid: tuple[int, int], given: GivenWeights, new: Mapping[str, Tensor]) -> Adapted:
        from rarkit.models.rar.adaptation import adapted

        return adapted(_own(config), grid, given, new)

    def for_transformers(self, config: ModelConfig, order: Sequence[int]) -> TransformersModel:
        own = _own(config)
        settings = {"model_type": "rarkit_rar", **own.model_dump(), "use_cache": True, "tie_word_embeddings": False}
        return TransformersModel("rarkit.models.rar.modeling_rar", "RAR", 2, own.vocabulary_size, settings)

    @property
    def dropped(self) -> dict[str, float]:
        return {"dropout": self.dropout, "attention_dropout": self.attention_dropout}

    def rehearsed(self) -> Self:
        heads = self.num_heads or (PRESETS[self.preset].num_heads if self.preset else 1)
        sizes = {"hidden_size": HEAD_SIZE * heads, "depth": DEPTH, "num_heads": heads, "mlp_hidden_size": None}
        return self.model_copy(update={**sizes, "preset": None, "weights": None})

    @model_validator(mode="after")
    def _one_way_to_say_the_size(self) -> Self:
        sizes = {name: getattr(self, name) for name in ("hidden_size", "depth", "num_heads")}
        if self.preset is not None:
            redundant = [name for name in (*sizes, "mlp_hidden_size") if getattr(self, name) is not None]
            if redundant:
                raise ValueError(f"preset = {self.preset!r} already sets {', '.join(redundant)}: remove or unset one or the other")
        else:
            missing = [name for name, value in sizes.items() if value is None]
            if missing:
                raise ValueError(f"{', '.join(missing)} missing: set preset, or hidden_size, depth and num_heads")
            if sizes["hidden_size"] % sizes["num_heads"]:
                raise ValueError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        return self


@final
class RARCosts(ModelCosts):
    """The costs of a RAR with this configuration, from ``training_costs`` and ``sampling_costs``."""

    def __init__(self, config: RARConfig) -> None:
        self.config = config

    def step_flops(self, batch_size: int, *, checkpointing: int) -> int:
        return training_costs.step_flops(self.config, batch_size, checkpointing=checkpointing)

    def training_bytes(self, *, micro_batch: int, precision: str, checkpointing: int, keeps_weights: bool) -> TrainingBytes:
        return training_costs.training_bytes(
            self.config, micro_batch=micro_batch, precision=precision, checkpointing=checkpointing, keeps_weights=keeps_weights
        )

    def hidden_weights(self) -> int:
        return training_costs.hidden_weights(self.config)

    def blocks(self) -> tuple[int, int]:
        return self.config.depth, self.config.block_parameter_count()

    def sampling_flops(self, *, batch: int, classes: int, guided_steps: int) -> int:
        return sampling_costs.sampling_flops(self.config, batch=batch, classes=classes, guided_steps=guided_steps)

    def sampling_traffic(self, *, batch: int, guided_steps: int, precision: str) -> int:
        return sampling_costs.sampling_traffic(self.config, batch=batch, guided_steps=guided_steps, dtype=precision)

    def sampling_bytes(self, *, batch: int, guided: bool, precision: str, kv_cache: str, on_cpu: bool) -> SamplingBytes:
        return sampling_costs.sampling_bytes(
            self.config,
            batch=batch,
            guided=guided,
            dtype=precision,
            float8_cache=kv_cache == "float8",
            on_cpu=on_cpu,
            # Assumes that a CPU has the compiled kernels.
            compiled=on_cpu,
            widens_bfloat16=on_cpu and emulates_bfloat16(),
            sums_apart=on_cpu and sums_bfloat16_apart(),
        )


def _own(config: ModelConfig) -> RARConfig:
    assert isinstance(config, RARConfig), config
    return config
