"""The configuration of a model. Imports no torch, because planning uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

from pydantic import Field

from rarkit.registry.bounds import Classes, Tokens, Width
from rarkit.registry.component import Settings


class ModelConfig(Settings, ABC):
    """Everything that determines a model's tensors. Subclasses add their sizes and are final."""

    hidden_size: Width
    """D, the width of the transformer; a multiple of the number of heads."""
    seq_len: Tokens
    """L, tokens per image."""
    codebook_size: Annotated[int, Field(gt=0, le=2**20)]
    """V, the number of codes."""
    num_classes: Classes
    """C, the number of classes, without "no class"."""
    class_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: probability that a sample's class is replaced by "no class"; the caller of the model draws which."""

    @abstractmethod
    def parameter_count(self) -> int:
        """Number of parameters."""
