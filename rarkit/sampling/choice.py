"""Draws a token from logits and one uniform number.

Shape letters: B batch, V codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rarkit.errors import UserError
from rarkit.registry.inputs import check_tensor
from rarkit.runtime.devices import in_float64
from rarkit.sampling.settings import Choice, TokenChoice

PLAIN = TokenChoice()


def distribution(logits_BV: Tensor, choice: Choice = PLAIN) -> Tensor:
    """The probabilities from which tokens are drawn: (B, V) float64, each row sums to 1; on the CPU if the device has no float64.

    Logits are divided by the temperature. ``top_k`` then keeps the k likeliest tokens (on ties, the lower ids). ``top_p`` keeps
    the fewest likeliest tokens whose renormalised probabilities sum to at least ``top_p``; always at least one.

    Args:
        logits_BV: (B, V), any floating dtype, after guidance.
        choice: temperature, ``top_k`` and ``top_p``.

    Raises:
        UserError: the logits are something else.
    """
    if not isinstance(logits_BV, Tensor) or logits_BV.ndim != 2 or not logits_BV.is_floating_point():
        given = f"{logits_BV.dtype} {tuple(logits_BV.shape)}" if isinstance(logits_BV, Tensor) else type(logits_BV).__name__
        raise UserError(f"distribution was given logits of {given}; they must be a tensor (B, V) of a floating dtype")
    temperature, top_k, top_p = choice.temperature, choice.top_k, choice.top_p
    scaled_BV = in_float64(logits_BV) / temperature
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
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds the uniform number.

    Args:
        probabilities_BV: (B, V) float64, rows sum to about 1.
        uniform_B: (B,) float64 in [0, 1].

    Returns:
        (B,) int64. A token of probability 0 is never drawn, even if the sums are rounded.

    Raises:
        UserError: one of them is something else.
    """
    check_tensor("draw", "probabilities_BV", probabilities_BV, "float64", ("B", "V"), "as distribution returns it")
    check_tensor("draw", "uniform_B", uniform_B, "float64", (len(probabilities_BV),), "a number for each row, as of noise")
    cumulated_BV = probabilities_BV.cumsum(-1)
    possible_BV = probabilities_BV > 0
    ids_V = torch.arange(probabilities_BV.shape[-1], device=probabilities_BV.device)
    reached_BV = possible_BV & (cumulated_BV > uniform_B[:, None] * cumulated_BV[:, -1:])
    first_B = ids_V.where(reached_BV, len(ids_V)).amin(-1)
    last_B = ids_V.where(possible_BV, 0).amax(-1)
    return torch.minimum(first_B, last_B)


def pick(logits_BV: Tensor, uniform_B: Tensor, choice: Choice = PLAIN) -> Tensor:
    """One token per row, (B,) int64: ``draw`` from ``distribution``."""
    return draw(distribution(logits_BV, choice), uniform_B)
