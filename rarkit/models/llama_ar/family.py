"""The model family ``llama_ar``: the ``[model]`` table of a plain autoregressive model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self, final

from pydantic import Field, model_validator

from rarkit.models.adaptation import Adapted, GivenWeights
from rarkit.models.base import Fraction, ModelCosts, ModelFamily, refuse_permutations
from rarkit.models.config import ModelConfig
from rarkit.models.exported import TransformersModel
from rarkit.models.llama_ar.config import LlamaARConfig, check_heads
from rarkit.models.llama_ar.costs import LlamaARCosts
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.constant import Constant
from rarkit.registry.bounds import Depth, Hidden, Width

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rarkit.attention.base import AttentionFunction
    from rarkit.models.image_model import ImageModel

HEAD_SIZE, DEPTH = 16, 2
"""Head width and number of blocks of a rehearsal's model."""


@final
class LlamaARFamily(ModelFamily):
    """A decoder-only transformer like LlamaGen's (arXiv 2406.06525): the autoregressive model that RAR is compared with.

    It has RMSNorm, SwiGLU, rotary positions in two dimensions, and the class as the first token. It trains only along the scan
    order: omit ``[permutation_schedule]``, or set its random ratio to 0 throughout. The weights have the names and shapes of
    transformers' Llama.
    """

    name: Literal["llama_ar"] = "llama_ar"
    hidden_size: Width
    """Width of the transformer; divisible by four times ``num_heads``."""
    depth: Depth
    """Number of blocks."""
    num_heads: Width
    """Attention heads per block."""
    mlp_hidden_size: Hidden | None = None
    """Width inside the MLP. Defaults to 8/3 of ``hidden_size``, rounded up to a multiple of 256 (16 for widths below 256)."""
    dropout: Fraction = 0.1
    """Dropout after attention and MLP during training."""
    attention_dropout: Fraction = 0.1
    """Dropout of attention weights during training."""
    rope_theta: Annotated[float, Field(gt=1.0, le=1e12)] = 10_000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Added to the mean square in every norm, against division by zero."""

    def config(self, *, grid: tuple[int, int], codebook_size: int, num_classes: int) -> LlamaARConfig:
        return LlamaARConfig(
            hidden_size=self.hidden_size,
            depth=self.depth,
            num_heads=self.num_heads,
            mlp_hidden_size=self.mlp_hidden_size or _llama_mlp(self.hidden_size),
            grid=grid,
            seq_len=grid[0] * grid[1],
            codebook_size=codebook_size,
            num_classes=num_classes,
            rope_theta=self.rope_theta,
            rms_norm_eps=self.rms_norm_eps,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            class_dropout=self.class_dropout,
        )

    def costs(self, config: ModelConfig) -> ModelCosts:
        return LlamaARCosts(_own(config))

    def create(self, config: ModelConfig, attention: AttentionFunction, seed: int) -> ImageModel:
        from rarkit.models.llama_ar.llama_ar import LlamaAR

        return LlamaAR(_own(config), attention, seed=seed)

    def restore(self, config: ModelConfig, attention: AttentionFunction, tensors: Mapping[str, Tensor]) -> ImageModel:
        from rarkit.models.llama_ar.llama_ar import LlamaAR

        model = LlamaAR(_own(config), attention, seed=None)
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
        from rarkit.models.llama_ar.checkpoints import load_llama_ar

        return load_llama_ar(path, _own(config), attention=attention, device=device, dtype=dtype)

    def adapted(self, config: ModelConfig, grid: tuple[int, int], given: GivenWeights, new: Mapping[str, Tensor]) -> Adapted:
        from rarkit.models.llama_ar.adaptation import adapted

        return adapted(_own(config), grid, given, new)

    def for_transformers(self, config: ModelConfig, order: Sequence[int]) -> TransformersModel:
        own = _own(config)
        settings = {
            "model_type": "rarkit_llama_ar",
            "hidden_size": own.hidden_size,
            "intermediate_size": own.mlp_hidden_size,
            "num_hidden_layers": own.depth,
            "num_attention_heads": own.num_heads,
            "num_key_value_heads": own.num_heads,
            "head_dim": own.head_size,
            "hidden_act": "silu",
            "rms_norm_eps": own.rms_norm_eps,
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": own.attention_dropout,
            "max_position_embeddings": own.seq_len + 1,
            "tie_word_embeddings": False,
            "use_cache": True,
            "rotary_base": own.rope_theta,
            "scan_order": list(order),
            "seq_len": own.seq_len,
            "codebook_size": own.codebook_size,
            "num_classes": own.num_classes,
        }
        return TransformersModel("rarkit.models.llama_ar.modeling_llama_ar", "LlamaAR", 1, own.vocabulary_size, settings)

    @property
    def dropped(self) -> dict[str, float]:
        return {"dropout": self.dropout, "attention_dropout": self.attention_dropout}

    def default_schedule(self) -> PermutationSchedule:
        return Constant(ratio=0.0)

    def check_schedule(self, schedule: PermutationSchedule) -> None:
        refuse_permutations(self.name, schedule)

    def rehearsed(self) -> Self:
        width = HEAD_SIZE * self.num_heads
        return self.model_copy(update={"hidden_size": width, "depth": DEPTH, "mlp_hidden_size": None, "weights": None})

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        check_heads(self.hidden_size, self.num_heads)
        return self


def _llama_mlp(width: int) -> int:
    multiple = 256 if width >= 256 else 16
    return -(-8 * width // (3 * multiple)) * multiple


def _own(config: ModelConfig) -> LlamaARConfig:
    assert isinstance(config, LlamaARConfig), config
    return config
