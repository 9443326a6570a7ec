"""Samples the tokens of images from a model.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rarkit.errors import PluginError, UserError, WeightsError
from rarkit.registry.contract import origin
from rarkit.sampling.choice import distribution, draw
from rarkit.sampling.decoder import Decodable, DecoderFactory
from rarkit.sampling.inputs import device_of, forced_of, labels_of, order_of, uniforms_of
from rarkit.sampling.settings import Choice, TokenChoice

SMALLEST_TEMPERATURE = 1e-250
"""Logits of float32 over anything larger are finite in float64."""
OnStep = Callable[[int, Tensor], None]
"""Called after each step with the step and the tokens so far: (B, L) int64, a raster grid with −1 in cells not yet visited."""


@final
@dataclass(frozen=True)
class Step:
    """One step of sampling: its number, the probabilities (B, V) float64, and the tokens drawn from them (B,) int64."""

    step: int
    probabilities_BV: Tensor
    tokens_B: Tensor


def generate(
    model: Decodable,
    labels: ArrayLike | Tensor,
    *,
    order: ArrayLike | Tensor,
    choice: Choice | None = None,
    seed: int = 0,
    indices: ArrayLike | None = None,
    on_step: OnStep | None = None,
    decoder: DecoderFactory | None = None,
    **settings: Any,
) -> Tensor:
    """Samples token grids. A sample depends on its label, its index and the seed, not on the rest of the batch.

    Args:
        model: a model of any family; sampling uses its device, dtype and attention. Pass what its ``prepare`` returns to avoid
            preparing the weights again for every batch.
        labels: (B,) classes in [0, C).
        order: (L,) int64, the raster index visited at each step.
        choice: how tokens are chosen. Alternatively, pass its fields by name: ``guidance`` (a schedule, or a number for the same
            scale at every step), ``temperature``, ``top_k``, ``top_p``.
        seed: any integer.
        indices: (B,) the samples' indices, integers ≥ 0; None means 0 … B − 1.
        on_step: called after each step, for progress and previews.
        decoder: replaces the model's own decoder; ``PlainDecoder`` is the slow reference.
        **settings: fields of ``TokenChoice``.

    Returns:
        (B, L) int64 in [0, V), a raster grid on the model's device.

    Raises:
        GridError: ``order`` is not a permutation of the model's token positions.
        UserError: a label or a setting is out of range.
        WeightsError: a merged model is sampled along an order other than its own, or the logits are NaN or infinite.
    """
    order_L = order_of(order, model.sizes.seq_len, device_of(model))
    raster_BL = torch.full((len(labels_of(model, labels)), len(order_L)), -1, device=order_L.device)
    cells = order_L.tolist()
    steps = decode(model, labels, order=order, choice=choice, seed=seed, indices=indices, decoder=decoder, **settings)
    for step in steps:
        raster_BL[:, cells[step.step]] = step.tokens_B
        if on_step is not None:
            on_step(step.step, raster_BL)
    return raster_BL


@torch.inference_mode()
def decode(
    model: Decodable,
    labels: ArrayLike | Tensor,
    *,
    order: ArrayLike | Tensor,
    choice: Choice | None = None,
    seed: int = 0,
    indices: ArrayLike | None = None,
    forced_tokens: Tensor | None = None,
    decoder: DecoderFactory | None = None,
    **settings: Any,
) -> Iterator[Step]:
    """Like ``generate``, but yields each step with its probabilities.

    Args:
        forced_tokens: (B, L) int64, a raster grid whose tokens are used instead of drawn ones. The other arguments are those of
            ``generate``.
    """
    if choice is not None and settings:
        raise UserError(f"both choice and its fields by name ({', '.join(settings)}) are given. Give one or the other.")
    choice = TokenChoice.of(settings) if choice is None else choice
    order_L, labels_B = order_of(order, model.sizes.seq_len, device_of(model)), labels_of(model, labels)
    scales = [choice.guidance.scale_at(step, len(order_L)) for step in range(len(order_L))]
    uniforms_BL = uniforms_of(model, len(labels_B), seed, indices)
    forced_BL = None if forced_tokens is None else forced_of(model, len(labels_B), forced_tokens, order_L)
    network = model.network
    training = network.training
    network.eval()
    try:
        arguments = labels_B, order_L, scales
        decoding = model.decoder(*arguments) if decoder is None else decoder(model, *arguments)
        tokens_B: Tensor | None = None
        sums_B = torch.zeros((), dtype=torch.float64)
        for step in range(len(order_L)):
            logits_BV = decoding.logits(step, tokens_B)
            expected = len(labels_B), model.sizes.codebook_size
            if logits_BV.shape != expected or logits_BV.dtype != torch.float32:
                raise PluginError(
                    f"the decoder {origin(type(decoding))} returns logits of {logits_BV.dtype} {tuple(logits_BV.shape)} at step "
                    f"{step}; they must be float32 {expected}. Choose another [model], or correct this one."
                )
            probabilities_BV = distribution(logits_BV, choice)
            # NaN in any logit, or an infinite one, makes all probabilities of its row NaN, and stays in the sum.
            sums_B = sums_B + probabilities_BV[:, 0]
            if sums_B.device.type == "cpu":
                _check_finite(sums_B, model, choice)
            drawn_B = draw(probabilities_BV, uniforms_BL[:, step].to(probabilities_BV.device))
            tokens_B = drawn_B.to(order_L.device) if forced_BL is None else forced_BL[:, step]
            yield Step(step, probabilities_BV, tokens_B)
        # Elsewhere once, since each look would wait for the device.
        _check_finite(sums_B, model, choice)
    finally:
        network.train(training)


def _check_finite(sums_B: Tensor, model: Decodable, choice: Choice) -> None:
    """Raises an error if probabilities of the steps so far were NaN."""
    if not sums_B.isnan().any():
        return
    if choice.temperature < SMALLEST_TEMPERATURE:
        raise UserError(f"temperature {choice.temperature} makes logits infinite. For the likeliest token, set top_k to 1.")
    raise WeightsError(
        f"the logits of the model ({type(model.network).__name__}) are NaN or infinite, and no token can be drawn from them: its "
        "weights are damaged, of a training that diverged, or too large for the precision. Use other weights, or float32."
    )
