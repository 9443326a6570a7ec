"""The contract of a model: teacher forcing for training and likelihoods, decoding for sampling.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction, Dropout, observed
from rarkit.attention.seeded_masks import layer_keys
from rarkit.errors import UserError
from rarkit.models.config import ModelConfig
from rarkit.models.inputs import check_inputs
from rarkit.registry.contract import checked
from rarkit.sampling.decoder import Decodable, Decoder
from rarkit.sampling.plain import PlainDecoder


class ImageModel(nn.Module, Decodable, ABC):
    """A class-conditional autoregressive model over image tokens in visiting order.

    The base class checks what ``forward`` is given.
    """

    config: ModelConfig
    attention: AttentionFunction

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls, forward=_checked_forward)

    @property
    def repeated(self) -> Sequence[nn.Module]:
        """The blocks that repeat, which training compiles and shards one by one; none if the model is one piece.

        Nothing of a block may be used outside its ``forward``, around which its weights are gathered.
        """
        return ()

    @abstractmethod
    def forward(
        self,
        tokens_BL: Tensor,
        labels_B: Tensor,
        orders_BL: Tensor,
        *,
        dropped_B: Tensor | None = None,
        mask_seeds_B: Tensor | None = None,
        checkpointing: int = 0,
    ) -> Tensor:
        """Teacher forcing: the predictions at every step, given the true tokens of the previous steps.

        Args:
            tokens_BL: (B, L) int64 in [0, V), a raster grid of codes.
            labels_B: (B,) int64 in [0, C).
            orders_BL: (B, L) int64, the raster index visited at each step, or (L,) for the same order in every sample.
            dropped_B: (B,) bool; true for samples without a class.
            mask_seeds_B: (B,) int64, the seeds of the samples' dropout masks; required in training mode if a dropout is above 0. On
                the CPU masks depend on nothing else. On other devices torch's generator draws them, except for attention backends
                with seeded dropout.
            checkpointing: of every block (1) or every n-th (n), save only the input for the backward pass and recompute the rest;
                0 for none.

        Returns:
            logits (B, L, V): entry t predicts ``tokens_BL.gather(1, orders_BL)[:, t]``.

        Raises:
            UserError: an argument has another shape or dtype, or a token or label is out of range.
            GridError: an order does not visit each cell once. Values are not read in training mode on a GPU, where that would
                make each step wait, nor while the model is compiled.
        """

    def prepare(self, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None) -> Decodable:
        """Prepares the weights for decoding, once for any number of batches.

        Unless a family has a decoder of its own, ``forward`` computes all entries anew at every step: slow, and always right.

        Raises:
            UserError, CapabilityError: the model, or this machine, does not support the options.
        """
        if int8 or float8_cache:
            raise UserError("this model has neither int8 weights nor a float8 cache: sample it in float32 or bfloat16")
        return _Prepared(self)

    def merge_positions(self, order_L: Tensor) -> ImageModel:
        """A smaller model with the same logits along one order, (L,) int64, if the family supports it.

        Raises:
            UserError: the family does not support it.
        """
        raise UserError("this model has no positional tables to merge: export it without --merged")

    def metadata(self) -> dict[str, str]:
        """The metadata of a safetensors file of the weights."""
        # A single entry: safetensors writes several in random order, and the same model would give different bytes each time.
        return {"config": self.config.model_dump_json()}

    @final
    def weight_dropout(self, probability: float, mask_seeds_B: Tensor | None, layer: int) -> Dropout | None:
        """The dropout that ``forward`` passes to attention in a layer; None outside training or if the probability is 0.

        Raises:
            UserError: there is dropout, but there are no seeds.
        """
        if not self.training or probability == 0:
            return None
        return Dropout(probability, _needed(mask_seeds_B, f"an attention dropout of {probability:g}"), layer)

    @final
    def dropout_keys(self, probability: float, layers: int, mask_seeds_B: Tensor | None) -> Tensor | None:
        """The keys of the dropout masks of all layers, (layers, places, B) int64; see ``rarkit.attention.seeded_masks``.

        None outside training, if the probability is 0, and on devices where torch's generator draws them, which there costs
        nothing.

        Raises:
            UserError: there is dropout, but there are no seeds.
        """
        if not self.training or probability == 0:
            return None
        seeds_B = _needed(mask_seeds_B, f"a dropout of {probability:g}")
        return layer_keys(seeds_B, layers) if seeds_B.device.type == "cpu" else None

    @final
    def check_attention(self, tokens_BL: Tensor, labels_B: Tensor, orders_BL: Tensor) -> None:
        """Runs ``forward`` once, and compares what the attention kernel returned with plain attention.

        Raises:
            PluginError: the kernel computes something else.
        """
        training = self.training
        self.eval()
        with torch.no_grad(), observed() as calls:
            self(tokens_BL, labels_B, orders_BL)
        self.train(training)
        for call in calls:
            call.check()

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


def _needed(mask_seeds_B: Tensor | None, dropout: str) -> Tensor:
    if mask_seeds_B is None:
        raise UserError(
            f"the model is in training mode with {dropout}: pass mask_seeds_B, one integer per sample, or call .eval() first"
        )
    return mask_seeds_B


@final
class _Prepared(Decodable):
    """A model that is decoded by its ``forward``."""

    def __init__(self, model: ImageModel) -> None:
        self._model = model

    @property
    def network(self) -> nn.Module:
        return self._model

    @property
    def sizes(self) -> ModelConfig:
        return self._model.config

    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        return PlainDecoder(self._model, labels_B, order_L, scales)


def _checked_forward(
    model: ImageModel,
    forward: Callable[..., Tensor],
    tokens_BL: Tensor,
    labels_B: Tensor,
    orders_BL: Tensor,
    *,
    dropped_B: Tensor | None = None,
    mask_seeds_B: Tensor | None = None,
    checkpointing: int = 0,
) -> Tensor:
    arguments = tokens_BL, labels_B, orders_BL
    check_inputs(model.config, *arguments, dropped_B, mask_seeds_B, training=model.training)
    return forward(*arguments, dropped_B=dropped_B, mask_seeds_B=mask_seeds_B, checkpointing=checkpointing)
