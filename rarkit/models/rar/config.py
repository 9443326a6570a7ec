"""The sizes of a RAR model; imports no torch, since planning reads them."""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field, model_validator

from rarkit.models.config import ModelConfig

SPARE_POSITIONS = 1024
"""Rows that the released positional tables have beyond the tokens; 2 of them serve (cls and class), the rest are unused."""
SPARE_STEPS = 100
"""Rows that the released table of step embeddings has beyond the tokens; 1 of them serves (cls), the rest are unused."""


@final
class RARConfig(ModelConfig):
    """Everything that decides the tensors of a RAR model, and its dropout in training."""

    depth: int = Field(gt=0)
    """How many transformer blocks."""
    num_heads: int = Field(gt=0)
    """N: attention heads in a block."""
    mlp_hidden_size: int = Field(gt=0)
    """Width of the hidden layer of each block's MLP."""
    layer_norm_eps: float = Field(default=1e-6, gt=0)
    """Added to the variance in every layer norm."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout after the attention's projection, after the MLP's activation and after the MLP."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout of attention weights."""
    target_aware: bool = True
    """Whether there is a second positional table, indexed by the position to be predicted next (RAR, section 3.3)."""
    conditioning: Literal["adaln", "prefix"] = "adaln"
    """How the class reaches the blocks: by adaptive layer norms and as a token, or as a token alone."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> RARConfig:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}: each head takes an equal share"
            )
        return self

    @property
    def head_size(self) -> int:
        """K: width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table: V codes, a mask token that RAR leaves unused, the classes, "no class"."""
        return self.codebook_size + 1 + self.num_classes + 1

    def parameter_count(self) -> int:
        """How many numbers the released layout of such a model holds, the unused rows of its tables included."""
        width, hidden = self.hidden_size, self.mlp_hidden_size
        tables = self.vocabulary_size + (1 + self.target_aware) * (self.seq_len + SPARE_POSITIONS) + 1
        attention = _linear(width, 3 * width) + _linear(width, width) + 4 * self.head_size
        mlp = _linear(width, hidden) + _linear(hidden, width)
        block = attention + mlp + 4 * width
        head = _linear(width, self.codebook_size)
        if self.conditioning == "adaln":
            tables += self.seq_len + SPARE_STEPS
            block += _linear(width, 6 * width)
            head += _linear(width, 2 * width)
        else:
            head += 2 * width
        return tables * width + self.depth * block + head


def _linear(inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs
