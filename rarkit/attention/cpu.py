"""Attention on the CPU with seeded dropout, forwards and backwards.

PyTorch's fused kernel for CPUs cannot drop weights. Here the weights are kept for the backward pass, and are computed in pieces
that stay in the cache; of causal attention, most of what is masked is not computed.

Shape letters: B batch, N heads, S query length, T key length, K head width; G samples × heads of a piece, C its queries, T its
keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from rarkit.attention.base import Dropout
from rarkit.attention.seeded_masks import ATTENTION, draws, kept_scale, mask_keys, threshold

QUERIES = 64
"""Queries of a piece of causal attention."""
AT_ONCE = 2**18
"""The most weights of a piece, if a sample has no more."""


@final
class Piece(NamedTuple):
    """Some queries of some samples, and the keys that they see."""

    samples: slice
    queries: slice
    keys: int


def pieces(batch: int, heads: int, length: int, seen: int, *, causal: bool) -> list[Piece]:
    """The pieces of attention. Those of the same samples follow each other, the one with all keys last."""
    at_once = max(1, AT_ONCE // (heads * length * seen))
    # A few queries more or less in the last piece cost less than a piece of their own.
    count = max(1, length // QUERIES) if causal else 1
    stops = [*range(QUERIES, QUERIES * count, QUERIES), length]
    starts = [0, *stops[:-1]]
    return [
        Piece(slice(first, min(first + at_once, batch)), slice(start, stop), stop if causal else seen)
        for first in range(0, batch, at_once)
        for start, stop in zip(starts, stops, strict=True)
    ]


def attend_forwards(
    q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, out_BNSK: Tensor, keys_B: Tensor | None, probability: float, *, causal: bool
) -> list[Tensor]:
    """Writes attention into ``out_BNSK``, of any strides, and returns what the backward pass needs of each piece.

    Args:
        keys_B: the keys of the masks; None for no dropout.
        probability: of a weight to be dropped.
        causal: query s sees keys 0 … s.
    """
    batch, heads, length, width = q_BNSK.shape
    seen, scale = k_BNTK.shape[2], 1.0 if keys_B is None else kept_scale(probability)
    kept: list[Tensor] = []
    for samples, queries, keys in pieces(batch, heads, length, seen, causal=causal):
        q_GCK, k_GTK, v_GTK = _parts(samples, q_BNSK[:, :, queries], k_BNTK[:, :, :keys], v_BNTK[:, :, :keys])
        scores_GCT = q_GCK.new_empty(len(q_GCK), q_GCK.shape[1], keys)
        scores_GCT.baddbmm_(q_GCK, k_GTK.transpose(1, 2), beta=0, alpha=width**-0.5)
        if causal:
            scores_GCT[:, :, queries.start :].add_(_future(q_GCK.shape[1], scores_GCT.dtype))
        weights_GCT = torch.softmax(scores_GCT, -1, dtype=torch.promote_types(q_BNSK.dtype, torch.float32))
        dropped_GCT = weights_GCT
        if keys_B is not None:
            drawn_BRT = draws(keys_B[samples], (heads, length), seen, queries, keys)
            dropped_GCT = torch.empty_like(weights_GCT)
            torch.ge(drawn_BRT.flatten(0, 1), threshold(probability), out=dropped_GCT)
            dropped_GCT.mul_(weights_GCT)
        dropped_GCT = dropped_GCT.to(v_BNTK.dtype)
        read_BNCK = torch.bmm(dropped_GCT, v_GTK).view(-1, heads, queries.stop - queries.start, width)
        torch.mul(read_BNCK, scale, out=out_BNSK[samples, :, queries])
        kept += [weights_GCT, dropped_GCT]
    return kept


def attend_backwards(
    gradient_BNSK: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    out_BNSK: Tensor,
    kept: Sequence[Tensor],
    gradients: tuple[Tensor, Tensor, Tensor],
    probability: float,
    *,
    causal: bool,
) -> None:
    """Writes the gradients of queries, keys and values into ``gradients``, which may have any strides.

    Args:
        gradient_BNSK: the gradient of ``out_BNSK``.
        inputs: the queries, keys and values.
        out_BNSK: the result.
        kept: what ``attend_forwards`` returned.
        gradients: the tensors to be written.
        probability: of a weight to be dropped; 0 for no dropout.
        causal: as in the forward pass.
    """
    q_BNSK, k_BNTK, v_BNTK = inputs
    batch, heads, length, width = q_BNSK.shape
    seen, alpha, scale = k_BNTK.shape[2], width**-0.5, kept_scale(probability) if probability else 1.0
    dk_GTK = dv_GTK = None
    for place, (samples, queries, keys) in reversed(list(enumerate(pieces(batch, heads, length, seen, causal=causal)))):
        weights_GCT, dropped_GCT = kept[2 * place : 2 * place + 2]
        q_GCK, k_GTK, v_GTK = _parts(samples, q_BNSK[:, :, queries], k_BNTK[:, :, :keys], v_BNTK[:, :, :keys])
        gradient_GCK, out_GCK = _parts(samples, gradient_BNSK[:, :, queries], out_BNSK[:, :, queries])
        # The sum over the keys of weight × its gradient, without looking at the keys.
        mean_GC1 = (gradient_GCK * out_GCK).sum(-1, keepdim=True, dtype=weights_GCT.dtype)
        slopes_GCT = torch.empty_like(dropped_GCT).baddbmm_(gradient_GCK, v_GTK.transpose(1, 2), beta=0, alpha=scale)
        slopes_GCT = slopes_GCT.to(weights_GCT.dtype).mul_(dropped_GCT).addcmul_(weights_GCT, mean_GC1, value=-1)
        slopes_GCT = slopes_GCT.to(q_GCK.dtype)
        read_GCK = torch.empty_like(gradient_GCK, memory_format=torch.contiguous_format)
        read_GCK.baddbmm_(slopes_GCT, k_GTK, beta=0, alpha=alpha)
        gradients[0][samples, :, queries] = read_GCK.view(-1, heads, queries.stop - queries.start, width)
        parts = torch.bmm(slopes_GCT.transpose(1, 2), q_GCK), torch.bmm(dropped_GCT.transpose(1, 2), gradient_GCK)
        if queries.stop == length:
            dk_GTK, dv_GTK = parts
        else:
            assert dk_GTK is not None
            assert dv_GTK is not None
            dk_GTK[:, :keys].add_(parts[0])
            dv_GTK[:, :keys].add_(parts[1])
        if queries.start == 0:
            torch.mul(dk_GTK.view(-1, heads, seen, width), alpha, out=gradients[1][samples])
            torch.mul(dv_GTK.view(-1, heads, seen, width), scale, out=gradients[2][samples])


def seeded_attention(q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, *, causal: bool, dropout: Dropout) -> Tensor:
    """softmax(q kᵀ / √K) v with dropout of weights, whose masks are functions of the seeds; see ``AttentionFunction``."""
    keys_B = mask_keys(dropout.seeds_B, dropout.layer, ATTENTION)
    read_BNSK: Tensor = _Seeded.apply(q_BNSK, k_BNTK, v_BNTK, keys_B, dropout.probability, causal)  # type: ignore[no-untyped-call]
    return read_BNSK


@final
class _Seeded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BNSK: Tensor, k_BNTK: Tensor, v_BNTK: Tensor, keys_B: Tensor, probability: float, causal: bool
    ) -> Tensor:
        # In the layout that the output projection reads.
        out_BNSK = _like_model(q_BNSK)
        kept = attend_forwards(q_BNSK, k_BNTK, v_BNTK, out_BNSK, keys_B, probability, causal=causal)
        ctx.save_for_backward(q_BNSK, k_BNTK, v_BNTK, out_BNSK, *kept)
        ctx.probability, ctx.causal = probability, causal
        return out_BNSK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BNSK: Tensor) -> tuple[Tensor | None, ...]:
        q_BNSK, k_BNTK, v_BNTK, out_BNSK, *kept = ctx.saved_tensors
        inputs = q_BNSK, k_BNTK, v_BNTK
        gradients = _like_model(q_BNSK), _like_model(k_BNTK), _like_model(v_BNTK)
        attend_backwards(gradient_BNSK, inputs, out_BNSK, kept, gradients, ctx.probability, causal=ctx.causal)
        return (*gradients, None, None, None)


def _parts(samples: slice, *tensors: Tensor) -> list[Tensor]:
    """These samples of (B, N, S, K) as (G, S, K), without copying where a piece has one."""
    return [tensor[samples].flatten(0, 1) for tensor in tensors]


def _like_model(values_BNSK: Tensor) -> Tensor:
    batch, heads, length, width = values_BNSK.shape
    return values_BNSK.new_empty(batch, length, heads, width).transpose(1, 2)


@lru_cache(maxsize=16)
def _future(queries: int, dtype: torch.dtype) -> Tensor:
    """−∞ for the keys after a query's own, else 0."""
    with torch.inference_mode(False):
        return torch.full((queries, queries), float("-inf"), dtype=dtype).triu_(1)
