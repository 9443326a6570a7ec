"""The configuration of a ``llama_ar`` model. Imports no torch, because planning uses it."""

from __future__ import annotations

from typing import final

from pydantic import Field, model_validator

from rarkit.models.config import ModelConfig
from rarkit.registry.bounds import Depth, Hidden, Tokens, Width


@final
class LlamaARConfig(ModelConfig):
    """Everything that determines the model's tensors and positions, and its dropout in training."""

    grid: tuple[Tokens, Tokens]
    """Height and width of the token grid; their product is ``seq_len``."""
    depth: Depth
    """Number of transformer blocks."""
    num_heads: Width
    """N, attention heads per block."""
    mlp_hidden_size: Hidden
    """H, the width of the hidden layer of each block's MLP."""
    rope_theta: float = Field(default=10_000.0, gt=1, le=1e12)
    """Base θ of the rotary frequencies: the slowest rotates by about 1/θ per cell."""
    rms_norm_eps: float = Field(default=1e-5, gt=0, le=1)
    """Added to the mean square in every norm, against division by zero."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout after the attention's output projection and after the MLP."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout of attention weights."""

    @model_validator(mode="after")
    def _consistent(self) -> LlamaARConfig:
        check_heads(self.hidden_size, self.num_heads)
        height, width = self.grid
        if height * width != self.seq_len:
            raise ValueError(f"grid {height} × {width} has {height * width} cells, but seq_len is {self.seq_len}: make them equal")
        return self

    @property
    def head_size(self) -> int:
        """K, the width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table: V codes, the classes, "no class"."""
        return self.codebook_size + self.num_classes + 1

    def matrix_weights(self) -> int:
        """Number of weights in the matrices of all blocks."""
        return self.depth * (4 * self.hidden_size**2 + 3 * self.hidden_size * self.mlp_hidden_size)

    def head_weights(self) -> int:
        """Number of weights in the matrix from the last norm to the logits."""
        return self.hidden_size * self.codebook_size

    def parameter_count(self) -> int:
        norms = (2 * self.depth + 1) * self.hidden_size
        return self.vocabulary_size * self.hidden_size + self.matrix_weights() + norms + self.head_weights()


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises ValueError unless the heads divide the width into parts that two-dimensional rotary positions can rotate."""
    if hidden_size % (4 * num_heads):
        raise ValueError(
            f"hidden_size {hidden_size} is not a multiple of 4 · num_heads = {4 * num_heads}, which rotary positions in two "
            "dimensions require"
        )
