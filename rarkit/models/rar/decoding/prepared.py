"""A model made ready for decoding."""

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
    """What ``prepare`` returns. Holds the weights as they were then: prepare again after training."""

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
    """Lays a model's weights out for decoding, once for any number of batches.

    Args:
        model: any RAR, merged or not, in the dtype to decode in.
        module: the same model, as a module.
        int8: keep the blocks' projections as int8, one scale for each output; the model must be in bfloat16, on the CPU. All else
            (embeddings, modulations, head, cache) stays in bfloat16.
        float8_cache: keep keys and values in float8 (e4m3, to ±448), and widen them where they are read: half the memory of a
            bfloat16 cache, for a relative error of up to 1/16 in each number.
        compiled: whether rarkit's own compiled kernels decode, in float32 from weights and cache of any type; where None, if they
            are faster than PyTorch's here (with a warning where they cannot be compiled).

    Raises:
        UserError: int8 was asked for elsewhere than on the CPU, or of a model in another dtype.
        CapabilityError: compiled kernels were asked for where there are none; it says why.
    """
    return Prepared(lay_out(model, int8=int8, float8_cache=float8_cache, compiled=compiled), module)
