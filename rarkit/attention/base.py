"""Attention backends: one interface to interchangeable kernels.

Shape letters: B batch, N heads, S query length, T key length, K head width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, final

from rarkit.errors import PluginError
from rarkit.registry.component import Component

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 0.05
"""The share of the largest value by which a kernel may be off; bfloat16 is by less than a hundredth."""


@final
class Dropout(NamedTuple):
    """Dropout of attention weights in one layer of one training step, with the seeds of its masks."""

    probability: float
    """The probability that an attention weight is zeroed; the others are scaled by 1 / (1 − probability)."""
    seeds_B: Tensor
    """(B,) int64, one seed per sample: a function of the run's seed, the step and the sample's index."""
    layer: int
    """The layer's number, from 0; each layer draws its own masks."""


class AttentionFunction(Protocol):
    """softmax(q kᵀ / √K) v, optionally causal."""

    def __call__(self, q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None) -> Tensor:
        """Returns (B, N, S, K) in the dtype of q.

        Args:
            causal: query s sees keys 0 … s; requires S = T.
            dropout: dropout of the attention weights; None outside training.
        """
        ...


def attend(
    attention: AttentionFunction, q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout | None = None
) -> Tensor:
    """Calls a kernel from a model, and checks the shape and dtype of what it returns.

    Raises:
        PluginError: they are not those of the queries.
    """
    read_BNSK = attention(q_BNSK, k_BNTK, v_BNTK, causal=causal, dropout=dropout)
    if read_BNSK.shape != q_BNSK.shape or (read_BNSK.dtype != q_BNSK.dtype and not _autocast(q_BNSK)):
        raise PluginError(
            f"the attention function {_origin(attention)} returns {read_BNSK.dtype} {tuple(read_BNSK.shape)} for queries in "
            f"{q_BNSK.dtype} {tuple(q_BNSK.shape)}; it must return the same. Choose another [attention], or correct this one."
        )
    if _OBSERVED is not None and not _OBSERVED:
        _OBSERVED.append(Call(attention, q_BNSK, k_BNTK, v_BNTK, read_BNSK, causal))
    return read_BNSK


@final
class Call(NamedTuple):
    """What a kernel was given, without dropout, and what it returned."""

    attention: AttentionFunction
    q_BNSK: Tensor
    k_BNTK: Tensor
    v_BNTK: Tensor
    read_BNSK: Tensor
    causal: bool

    def check(self) -> None:
        """Compares one head of one sample with attention in float64.

        A kernel that lets queries see later keys trains without a complaint, to a low loss and a useless model.

        Raises:
            PluginError: they differ by far more than rounding.
        """
        import torch

        q_SK, k_TK, v_TK, read_SK = (tensor[0, 0].detach().cpu().double() for tensor in self[1:5])
        scores_ST = q_SK @ k_TK.T / q_SK.shape[1] ** 0.5
        if self.causal:
            scores_ST = scores_ST.masked_fill(torch.ones_like(scores_ST).triu(1).bool(), float("-inf"))
        error = (read_SK - scores_ST.softmax(-1) @ v_TK).abs().max() / v_TK.abs().max().clamp(min=1e-30)
        # A comparison with NaN is false.
        if not error <= ROUNDING:
            kind = "causal attention" if self.causal else "attention"
            raise PluginError(
                f"the attention function {_origin(self.attention)} does not compute {kind}, softmax(q kᵀ / √K) v: it is off by "
                f"{error:.0%} of the largest value. Choose another [attention], or correct this one."
            )


_OBSERVED: list[Call] | None = None


@contextmanager
def observed() -> Iterator[list[Call]]:
    """Keeps the first call of ``attend`` in it."""
    global _OBSERVED
    _OBSERVED = []
    try:
        yield _OBSERVED
    finally:
        _OBSERVED = None


def _origin(attention: AttentionFunction) -> str:
    return f"{getattr(attention, '__module__', '?')}.{getattr(attention, '__qualname__', type(attention).__name__)}"


def _autocast(tensor: Tensor) -> bool:
    """Whether torch chooses the dtype of products."""
    import torch

    return torch.is_autocast_enabled(tensor.device.type)


class AttentionBackend(Component):
    """Selects the attention kernel. The kernel named in the recipe is the one that runs; there is no silent fallback."""

    kind: ClassVar[str] = "attention_backends"

    if TYPE_CHECKING:
        # The class of a part that is looked up by name has settings that type checkers cannot know.
        def __init__(self, **settings: Any) -> None: ...

    has_dropout: ClassVar[bool] = True
    """Whether the kernel can drop attention weights in training; if not, planning refuses ``attention_dropout``."""
    has_seeded_dropout: ClassVar[bool] = False
    """Whether a sample's mask depends only on its seed and the layer, on every device.

    If not, the kernel may draw from torch's generator, which training seeds at each step: on such a device masks then depend on how
    the batch is split."""
    keeps_weights: ClassVar[bool] = False
    """Whether all S × T attention weights stay in memory for the backward pass; the memory estimate counts them."""

    @abstractmethod
    def build(self) -> AttentionFunction:
        """The kernel. Imports torch and the backend's own library."""
