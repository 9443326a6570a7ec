"""What every model does: teacher forcing for training and likelihoods, decoding for sampling.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction, Dropout
from rarkit.errors import UserError
from rarkit.models.config import ModelConfig
from rarkit.sampling.decoder import Decodable, Decoder


class ImageModel(nn.Module, Decodable, ABC):
    """A class-conditional autoregressive model over image tokens in visiting order."""

    config: ModelConfig
    attention: AttentionFunction

    @abstractmethod
    def forward(
        self,
        tokens_BL: Tensor,
        labels_B: Tensor,
        orders_BL: Tensor,
        *,
        dropped_B: Tensor | None = None,
        mask_seeds_B: Tensor | None = None,
        checkpointing: bool = False,
    ) -> Tensor:
        """Teacher forcing: what the model expects at every step, given the true tokens of the steps before.

        Args:
            tokens_BL: (B, L) int64 in [0, V), a raster grid of codes.
            labels_B: (B,) int64 in [0, C).
            orders_BL: (B, L), or (L,) for all alike; int64, the raster index visited at each step.
            dropped_B: (B,) bool; true where the sample is to be seen as having no class.
            mask_seeds_B: (B,) int64, what dropout masks of attention weights are drawn from; needed in training mode where
                attention dropout is above 0.
            checkpointing: keep only the blocks' inputs for the backward pass and compute the rest again.

        Returns:
            logits (B, L, V): entry t predicts ``tokens_BL.gather(1, orders_BL)[:, t]``.
        """

    @abstractmethod
    def prepare(self, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None) -> Decodable:
        """Lays the weights out for decoding, once for any number of batches.

        Raises:
            UserError, CapabilityError: the model cannot be decoded so, here or at all.
        """

    def merge_positions(self, order_L: Tensor) -> ImageModel:
        """A smaller model with the same logits along this one order, (L,) int64, where the family has such.

        Raises:
            UserError: it has not.
        """
        raise UserError("this model has no positional tables to merge: export it as it is, without --merged")

    def metadata(self) -> dict[str, str]:
        """What a safetensors file of the weights carries beside them."""
        # One entry alone: safetensors writes several in any order, and the same model would give other bytes each time.
        return {"config": self.config.model_dump_json()}

    @final
    def weight_dropout(self, probability: float, mask_seeds_B: Tensor | None, layer: int) -> Dropout | None:
        """What ``forward`` hands to attention in a layer: None outside training, or where nothing is dropped.

        Raises:
            UserError: masks are to be drawn, and there are no seeds.
        """
        if not self.training or probability == 0:
            return None
        if mask_seeds_B is None:
            raise UserError(
                f"the model drops attention weights in training ({probability:g} of them): give mask_seeds_B, an integer a sample, "
                "or call .eval() first"
            )
        return Dropout(probability, mask_seeds_B, layer)

    @property
    @final
    def network(self) -> nn.Module:
        return self

    @property
    @final
    def sizes(self) -> ModelConfig:
        return self.config

    @property
    @final
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    @final
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @final
    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        return self.prepare().decoder(labels_B, order_L, scales)
