"""The configuration of a RAR model. Imports no torch, because planning uses it."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field, model_validator

from rarkit.models.config import ModelConfig
from rarkit.registry.bounds import Depth, Hidden, Width

SPARE_POSITIONS = 1024
"""Rows of the released positional tables beyond the tokens; 2 are used (cls and class), the rest are unused."""
SPARE_STEPS = 100
"""Rows of the released table of step embeddings beyond the tokens; 1 is used (cls), the rest are unused."""


@final
class RARConfig(ModelConfig):
    """Everything that determines the tensors of a RAR model, and its dropout in training."""

    depth: Depth
    """Number of transformer blocks."""
    num_heads: Width
    """N, attention heads per block."""
    mlp_hidden_size: Hidden
    """Width of the hidden layer of each block's MLP."""
    layer_norm_eps: float = Field(default=1e-6, gt=0, le=1)
    """Added to the variance in every layer norm, against division by zero."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout after the attention's projection, after the MLP's activation and after the MLP."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout of attention weights."""
    target_aware: bool = True
    """Whether there is a second positional table, indexed by the next position to predict (RAR, section 3.3)."""
    conditioning: Literal["adaln", "prefix"] = "adaln"
    """How the blocks get the class: ``"adaln"`` as a token and through adaptive layer norms, ``"prefix"`` only as a token."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> RARConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: all heads have the same width"
            )
        return self

    @property
    def head_size(self) -> int:
        """K, the width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table: V codes, a mask token that RAR does not use, the classes, "no class"."""
        return self.codebook_size + 1 + self.num_classes + 1

    def parameter_count(self) -> int:
        """Number of parameters in the released layout, including the unused rows of its tables."""
        width = self.hidden_size
        tables = self.vocabulary_size + (1 + self.target_aware) * (self.seq_len + SPARE_POSITIONS) + 1
        head = _linear(width, self.codebook_size)
        if self.conditioning == "adaln":
            tables += self.seq_len + SPARE_STEPS
            head += _linear(width, 2 * width)
        else:
            head += 2 * width
        return tables * width + self.depth * self.block_parameter_count() + head

    def block_parameter_count(self) -> int:
        """Number of parameters of one block."""
        width, hidden = self.hidden_size, self.mlp_hidden_size
        attention = _linear(width, 3 * width) + _linear(width, width) + 4 * self.head_size
        mlp = _linear(width, hidden) + _linear(hidden, width)
        modulations = _linear(width, 6 * width) if self.conditioning == "adaln" else 0
        return attention + mlp + 4 * width + modulations


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
