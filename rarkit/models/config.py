"""The sizes of a model; imports no torch, since planning reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import Field

from rarkit.registry.component import Settings


class ModelConfig(Settings, ABC):
    """Everything that decides the tensors of a model; subclasses add their sizes and are final."""

    hidden_size: int = Field(gt=0)
    """D: width of the transformer; a multiple of the number of heads."""
    seq_len: int = Field(gt=0)
    """L: tokens of an image."""
    codebook_size: int = Field(gt=0)
    """V: how many codes a token can take."""
    num_classes: int = Field(gt=0)
    """C: how many classes there are, "no class" not counted."""
    class_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Training only: how often a sample's class is replaced by "no class" (whoever calls the model draws which)."""

    @abstractmethod
    def parameter_count(self) -> int:
        """How many numbers the weights of such a model hold."""
