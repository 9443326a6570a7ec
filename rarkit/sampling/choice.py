"""From logits and one uniform number to a token.

Shape letters: B batch, V codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarkit.errors import UserError


def check_choice(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises UserError unless these can shape a distribution."""
    if not temperature > 0:
        raise UserError(f"temperature is {temperature}; it must be above 0 (top_k = 1 takes the likeliest token)")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k is {top_k}; at least one token must be left to choose from (leave it out to keep all)")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p is {top_p}; it is a probability above 0, at most 1 (leave it out to keep all tokens)")


def distribution(logits_BV: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The probabilities that tokens are drawn with: (B, V) float64, each row sums to 1.

    Args:
        logits_BV: (B, V), any floating dtype.
        temperature: logits are divided by it first.
        top_k: keep the k likeliest tokens; among equals the lower ids.
        top_p: of those, renormalised, keep the likeliest until their probabilities reach this sum; the first always stays.
    """
    scaled_BV = logits_BV.double() / temperature
    if top_k is None and top_p is None:
        return scaled_BV.softmax(-1)
    ranked_BV, ids_BV = scaled_BV.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ranked_BV[:, top_k:] = float("-inf")
    probabilities_BV = ranked_BV.softmax(-1)
    if top_p is not None:
        before_BV = probabilities_BV.cumsum(-1) - probabilities_BV
        outside_BV = before_BV >= top_p
        outside_BV[:, 0] = False
        probabilities_BV = probabilities_BV.masked_fill(outside_BV, 0.0)
        probabilities_BV = probabilities_BV / probabilities_BV.sum(-1, keepdim=True)
    return torch.zeros_like(probabilities_BV).scatter_(1, ids_BV, probabilities_BV)


def draw(probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Inverse CDF: the first token whose cumulated probability exceeds u.

    Args:
        probabilities_BV: (B, V) float64, rows sum to about 1.
        uniform_B: (B,) float64 in [0, 1].

    Returns:
        (B,) int64. A token of probability 0 is never drawn, whatever rounding does to the sums.
    """
    cumulated_BV = probabilities_BV.cumsum(-1)
    possible_BV = probabilities_BV > 0
    ids_V = torch.arange(probabilities_BV.shape[-1], device=probabilities_BV.device)
    reached_BV = possible_BV & (cumulated_BV > uniform_B[:, None] * cumulated_BV[:, -1:])
    first_B = ids_V.where(reached_BV, len(ids_V)).amin(-1)
    last_B = ids_V.where(possible_BV, 0).amax(-1)
    return torch.minimum(first_B, last_B)


def pick(
    logits_BV: Tensor,
    uniform_B: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """One token a row, (B,) int64: ``draw`` from ``distribution``."""
    return draw(distribution(logits_BV, temperature, top_k, top_p), uniform_B)
