"""The sizes of a ``llama_ar`` model; imports no torch, since planning reads them."""

from __future__ import annotations

from typing import final

from pydantic import Field, PositiveInt, model_validator

from rarkit.models.config import ModelConfig


@final
class LlamaARConfig(ModelConfig):
    """Everything that decides the tensors and the positions of the model, and its dropout in training."""

    grid: tuple[PositiveInt, PositiveInt]
    """Height and width of an image's grid of tokens; their product is ``seq_len``."""
    depth: int = Field(gt=0)
    """How many transformer blocks."""
    num_heads: int = Field(gt=0)
    """N: attention heads in a block."""
    mlp_hidden_size: int = Field(gt=0)
    """H: width of the hidden layer of each block's MLP."""
    rope_theta: float = Field(default=10_000.0, gt=1)
    """The base of the rotary frequencies: the slowest turns by about 1/θ for each cell."""
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    """Added to the mean square in every norm."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout after the attention's output projection and after the MLP."""
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: dropout of attention weights."""

    @model_validator(mode="after")
    def _consistent(self) -> LlamaARConfig:
        check_heads(self.hidden_size, self.num_heads)
        height, width = self.grid
        if height * width != self.seq_len:
            raise ValueError(f"grid {height} × {width} has {height * width} cells, and seq_len is {self.seq_len}: they must agree")
        return self

    @property
    def head_size(self) -> int:
        """K: width of one head."""
        return self.hidden_size // self.num_heads

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table: V codes, the classes, "no class"."""
        return self.codebook_size + self.num_classes + 1

    def matrix_weights(self) -> int:
        """Weights of the matrices that every entry of a sequence meets in the blocks."""
        return self.depth * (4 * self.hidden_size**2 + 3 * self.hidden_size * self.mlp_hidden_size)

    def head_weights(self) -> int:
        """Weights of the matrix from the last norm to the logits."""
        return self.hidden_size * self.codebook_size

    def parameter_count(self) -> int:
        norms = (2 * self.depth + 1) * self.hidden_size
        return self.vocabulary_size * self.hidden_size + self.matrix_weights() + norms + self.head_weights()


def check_heads(hidden_size: int, num_heads: int) -> None:
    """Raises ValueError unless each head takes an equal share of the width that rotary positions in two dimensions can turn."""
    if hidden_size % (4 * num_heads):
        raise ValueError(
            f"hidden_size {hidden_size} is not a multiple of 4 · num_heads = {4 * num_heads}: rows and columns each turn pairs of "
            "a head's numbers"
        )
