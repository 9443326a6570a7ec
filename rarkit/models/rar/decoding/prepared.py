"""A model prepared for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import Tensor, nn

from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.decoding.decoder import CachedDecoder
from rarkit.models.rar.decoding.weights import DecodingWeights, Network, lay_out
from rarkit.sampling.decoder import Decodable, Decoder


@final
class Prepared(Decodable):
    """The result of ``prepare``. It has a snapshot of the weights: prepare again after training."""

    def __init__(self, weights: DecodingWeights, module: nn.Module) -> None:
        self.weights, self._module = weights, module

    @property
    def network(self) -> nn.Module:
        return self._module

    @property
    def sizes(self) -> RARConfig:
        return self.weights.model.config

    def decoder(self, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> Decoder:
        return CachedDecoder(self.weights, labels_B, order_L, scales)


def prepare(
    model: Network, module: nn.Module, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None
) -> Prepared:
    """Prepares a model's weights for decoding, once for any number of batches.

    Args:
        model: any RAR, merged or not, in the dtype of decoding.
        module: the same model, as a module.
        int8: store the blocks' projections as int8 with one scale per output; the model must be in bfloat16 on the CPU.
            Everything else (embeddings, modulations, head, cache) stays in bfloat16.
        float8_cache: store keys and values in float8 (e4m3, up to ±448) and widen them as they are read: half the memory of a
            bfloat16 cache, at a relative error of up to 1/16 per number.
        compiled: whether to decode with rarkit's compiled kernels, in float32 from weights and cache of any type. None uses
            them if they are faster than PyTorch's on this machine, and warns if they cannot be compiled.

    Raises:
        UserError: ``int8`` with a model that is not on the CPU or not in bfloat16.
        CapabilityError: ``compiled`` is true, but the kernels are not available; the message says why.
    """
    return Prepared(lay_out(model, int8=int8, float8_cache=float8_cache, compiled=compiled), module)
