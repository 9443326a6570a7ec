"""Attention on the CPU with seeded dropout, forwards and backwards.

PyTorch's fused kernel for CPUs cannot drop weights. Here the weights are kept for the backward pass, and are computed in pieces
that stay in the cache; of causal attention, most of what is masked is not computed.

Shape letters: B batch, N heads, G = B·N or those of a piece, S query length, C queries of a piece, T key length, K head width.
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
    q_GSK: Tensor, k_GTK: Tensor, v_GTK: Tensor, heads: int, keys_B: Tensor | None, probability: float, *, causal: bool
) -> tuple[Tensor, list[Tensor]]:
    """Attention (G, S, K), and what the backward pass needs of each piece.

    Args:
        q_GSK, k_GTK, v_GTK: contiguous, so that no product has to copy them.
        heads: N; those of a sample follow each other.
        keys_B: the keys of the masks; None for no dropout.
        probability: of a weight to be dropped.
        causal: query s sees keys 0 … s.
    """
    (count, length, width), seen = q_GSK.shape, k_GTK.shape[1]
    scale = 1.0 if keys_B is None else kept_scale(probability)
    out_GSK = torch.empty_like(q_GSK)
    kept: list[Tensor] = []
    for samples, queries, keys in pieces(count // heads, heads, length, seen, causal=causal):
        part = slice(samples.start * heads, samples.stop * heads)
        q_GCK = q_GSK[part, queries]
        scores_GCT = q_GCK.new_empty(len(q_GCK), q_GCK.shape[1], keys)
        scores_GCT.baddbmm_(q_GCK, k_GTK[part, :keys].transpose(1, 2), beta=0, alpha=width**-0.5)
        if causal:
            scores_GCT[:, :, queries.start :].add_(_future(q_GCK.shape[1], scores_GCT.dtype))
        weights_GCT = torch.softmax(scores_GCT, -1, dtype=torch.promote_types(q_GSK.dtype, torch.float32))
        dropped_GCT = weights_GCT
        if keys_B is not None:
            drawn_BRT = draws(keys_B[samples], (heads, length), seen, queries, keys)
            dropped_GCT = torch.empty_like(weights_GCT)
            torch.ge(drawn_BRT.flatten(0, 1), threshold(probability), out=dropped_GCT)
            dropped_GCT.mul_(weights_GCT)
        dropped_GCT = dropped_GCT.to(v_GTK.dtype)
        _product(out_GSK[part, queries], dropped_GCT, v_GTK[part, :keys], scale)
        kept += [weights_GCT, dropped_GCT]
    return out_GSK, kept


def attend_backwards(
    gradient_GSK: Tensor,
    mean_GS1: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    kept: Sequence[Tensor],
    heads: int,
    probability: float,
    *,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of queries, keys and values.

    Args:
        gradient_GSK: the gradient of the result, contiguous.
        mean_GS1: ``mean_gradient`` of it.
        inputs: the queries, keys and values that ``attend_forwards`` was given.
        kept: what it returned.
        heads: as in the forward pass.
        probability: of a weight to be dropped; 0 for no dropout.
        causal: as in the forward pass.
    """
    q_GSK, k_GTK, v_GTK = inputs
    (count, length, width), seen = q_GSK.shape, k_GTK.shape[1]
    alpha, scale = width**-0.5, kept_scale(probability) if probability else 1.0
    dq_GSK, dk_GTK, dv_GTK = torch.empty_like(q_GSK), torch.empty_like(k_GTK), torch.empty_like(v_GTK)
    found = pieces(count // heads, heads, length, seen, causal=causal)
    for place, (samples, queries, keys) in reversed(list(enumerate(found))):
        part = slice(samples.start * heads, samples.stop * heads)
        weights_GCT, dropped_GCT = kept[2 * place : 2 * place + 2]
        gradient_GCK, k_GKT = gradient_GSK[part, queries], k_GTK[part, :keys]
        slopes_GCT = torch.empty_like(dropped_GCT)
        slopes_GCT.baddbmm_(gradient_GCK, v_GTK[part, :keys].transpose(1, 2), beta=0, alpha=scale)
        slopes_GCT = slopes_GCT.to(weights_GCT.dtype).mul_(dropped_GCT)
        slopes_GCT = slopes_GCT.addcmul_(weights_GCT, mean_GS1[part, queries], value=-1).to(q_GSK.dtype)
        _product(dq_GSK[part, queries], slopes_GCT, k_GKT, alpha)
        parts = slopes_GCT.transpose(1, 2), q_GSK[part, queries], dropped_GCT.transpose(1, 2), gradient_GCK
        if queries.stop == length:
            _product(dk_GTK[part], *parts[:2], alpha)
            _product(dv_GTK[part], *parts[2:], scale)
        else:
            dk_GTK[part, :keys].add_(torch.bmm(*parts[:2]), alpha=alpha)
            dv_GTK[part, :keys].add_(torch.bmm(*parts[2:]), alpha=scale)
    return dq_GSK, dk_GTK, dv_GTK


def mean_gradient(gradient_BSNK: Tensor, out_BSNK: Tensor) -> Tensor:
    """The sum over the keys of weight × its gradient, without looking at the keys: (G, S, 1), at least in float32."""
    dtype = torch.promote_types(gradient_BSNK.dtype, torch.float32)
    return (gradient_BSNK * out_BSNK).sum(-1, keepdim=True, dtype=dtype).transpose(1, 2).flatten(0, 1)


def _product(out_GCK: Tensor, left_GCT: Tensor, right_GTK: Tensor, scale: float) -> None:
    if out_GCK.is_contiguous():
        out_GCK.baddbmm_(left_GCT, right_GTK, beta=0, alpha=scale)
    else:
        # Torch would multiply one matrix after another.
        torch.mul(torch.bmm(left_GCT, right_GTK), scale, out=out_GCK)


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
        inputs = _flat(q_BNSK), _flat(k_BNTK), _flat(v_BNTK)
        out_GSK, kept = attend_forwards(*inputs, q_BNSK.shape[1], keys_B, probability, causal=causal)
        # In the layout that the output projection reads.
        out_BSNK = out_GSK.view(q_BNSK.shape).transpose(1, 2).contiguous()
        ctx.save_for_backward(*inputs, out_BSNK, *kept)
        ctx.probability, ctx.causal = probability, causal
        return out_BSNK.transpose(1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient_BNSK: Tensor) -> tuple[Tensor | None, ...]:
        q_GSK, k_GTK, v_GTK, out_BSNK, *kept = ctx.saved_tensors
        batch, heads = gradient_BNSK.shape[:2]
        mean_GS1 = mean_gradient(gradient_BNSK.transpose(1, 2), out_BSNK)
        inputs = q_GSK, k_GTK, v_GTK
        gradients = attend_backwards(_flat(gradient_BNSK), mean_GS1, inputs, kept, heads, ctx.probability, causal=ctx.causal)
        return (*(gradient.view(batch, heads, *gradient.shape[1:]) for gradient in gradients), None, None, None)


def _flat(values_BNSK: Tensor) -> Tensor:
    return values_BNSK.flatten(0, 1).contiguous()


@lru_cache(maxsize=16)
def _future(queries: int, dtype: torch.dtype) -> Tensor:
    """−∞ for the keys after a query's own, else 0."""
    with torch.inference_mode(False):
        return torch.full((queries, queries), float("-inf"), dtype=dtype).triu_(1)
