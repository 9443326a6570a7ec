"""Sampling images' tokens from a model.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rarkit.errors import GridError, UserError
from rarkit.models.rar.transformer import OrderedTransformer
from rarkit.sampling.decoder import Decoder
from rarkit.models.rar.decoding.decoder import CachedDecoder
from rarkit.sampling.choice import check_choice, distribution, draw
from rarkit.sampling.guidance import Constant, GuidanceSchedule
from rarkit.sampling.noise import noise
from rarkit.models.rar.decoding.prepared import Prepared

OnStep = Callable[[int, Tensor], None]
"""Called after each step with its number and the tokens so far: (B, L) int64, a raster grid with −1 in cells not yet visited."""


@final
@dataclass(frozen=True)
class Step:
    """One step of sampling: its number, what the tokens were drawn from (B, V) float64, and the tokens (B,) int64."""

    step: int
    probabilities_BV: Tensor
    tokens_B: Tensor


def generate(
    model: OrderedTransformer | Prepared,
    labels: ArrayLike | Tensor,
    *,
    order: ArrayLike | Tensor,
    guidance: GuidanceSchedule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    indices: ArrayLike | None = None,
    on_step: OnStep | None = None,
    decoder: type[Decoder] = CachedDecoder,
) -> Tensor:
    """Samples token grids. A sample depends on its label, the seed and its index, not on the batch it is computed in.

    Args:
        model: any RAR, merged or not; works on its device, in its dtype, with its attention. What ``prepare`` makes of it
            saves laying out the weights anew for each batch.
        labels: (B,) classes in [0, C).
        order: (L,) int64, the raster index visited at each step.
        guidance: none where None.
        temperature: logits are divided by it, after guidance.
        top_k: draw from the k likeliest tokens only.
        top_p: draw from the likeliest tokens that together reach this probability only.
        seed: any integer.
        indices: (B,) the samples' indices, integers from 0 on; 0 … B − 1 where None.
        on_step: for progress and previews.
        decoder: how logits are computed; ``PlainDecoder`` is the slow reference.

    Returns:
        (B, L) int64 in [0, V), a raster grid on the model's device.

    Raises:
        GridError: ``order`` is not an order of the model's tokens.
        UserError: a label or a setting is out of range.
        WeightsError: a merged model was asked for another order than its own.
    """
    base = model.model if isinstance(model, Prepared) else model
    order_L = _order(base, order)
    raster_BL = torch.full((len(_labels(base, labels)), len(order_L)), -1, device=order_L.device)
    cells = order_L.tolist()
    for step in decode(
        model,
        labels,
        order=order,
        guidance=guidance,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        indices=indices,
        decoder=decoder,
    ):
        raster_BL[:, cells[step.step]] = step.tokens_B
        if on_step is not None:
            on_step(step.step, raster_BL)
    return raster_BL


@torch.inference_mode()
def decode(
    model: OrderedTransformer | Prepared,
    labels: ArrayLike | Tensor,
    *,
    order: ArrayLike | Tensor,
    guidance: GuidanceSchedule | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    indices: ArrayLike | None = None,
    forced_tokens: Tensor | None = None,
    decoder: type[Decoder] = CachedDecoder,
) -> Iterator[Step]:
    """``generate``, step by step, with the probabilities; the arguments are the same, and

    Args:
        forced_tokens: (B, L) int64, a raster grid; its tokens are taken at every step in place of drawn ones.
    """
    check_choice(temperature, top_k, top_p)
    base = model.model if isinstance(model, Prepared) else model
    order_L, labels_B = _order(base, order), _labels(base, labels)
    guidance = Constant() if guidance is None else guidance
    scales = [guidance.scale_at(step, len(order_L)) for step in range(len(order_L))]
    uniforms_BL = _uniforms(base, len(labels_B), seed, indices)
    forced_BL = None if forced_tokens is None else forced_tokens.to(order_L.device)[:, order_L]
    training = base.training
    base.eval()
    try:
        decoding = decoder(model, labels_B, order_L, scales)
        tokens_B: Tensor | None = None
        for step in range(len(order_L)):
            logits_BV = decoding.logits(step, tokens_B)
            probabilities_BV = distribution(logits_BV, temperature, top_k, top_p)
            tokens_B = draw(probabilities_BV, uniforms_BL[:, step]) if forced_BL is None else forced_BL[:, step]
            yield Step(step, probabilities_BV, tokens_B)
    finally:
        base.train(training)


def _order(model: OrderedTransformer, order: ArrayLike | Tensor) -> Tensor:
    length = model.config.seq_len
    order_L = torch.as_tensor(order, device=model.cls_token.device)
    if order_L.shape != (length,) or order_L.is_floating_point():
        raise GridError(
            f"the model has {length} tokens an image; the order is of shape {tuple(order_L.shape)}, {order_L.dtype}. Give the "
            f"raster index visited at each step, ({length},) int64, as a scan order's order(height, width) does."
        )
    order_L = order_L.long()
    if not torch.equal(order_L.sort().values, torch.arange(length, device=order_L.device)):
        raise GridError(f"the order does not visit each of the {length} cells once; a scan order's order(height, width) does")
    return order_L


def _labels(model: OrderedTransformer, labels: ArrayLike | Tensor) -> Tensor:
    labels_B = torch.as_tensor(labels, device=model.cls_token.device)
    if labels_B.ndim != 1 or labels_B.is_floating_point():
        raise UserError(f"labels are of shape {tuple(labels_B.shape)}, {labels_B.dtype}; give one class id a sample, (B,) int64")
    wrong = [label for label in labels_B.tolist() if not 0 <= label < model.config.num_classes]
    if wrong:
        raise UserError(f"label {wrong[0]} is none of the model's classes, 0 … {model.config.num_classes - 1}")
    return labels_B.long()


def _uniforms(model: OrderedTransformer, batch: int, seed: int, indices: ArrayLike | None) -> Tensor:
    indices_B = np.arange(batch) if indices is None else np.asarray(indices)
    if indices_B.shape != (batch,):
        raise UserError(f"{batch} labels, but sample indices of shape {indices_B.shape}; give one index a label")
    if not np.issubdtype(indices_B.dtype, np.integer) or indices_B.min(initial=0) < 0:
        raise UserError(f"sample indices {indices_B.tolist()}; they are integers from 0 on, and choose the samples' noise")
    return torch.from_numpy(noise(seed, indices_B, model.config.seq_len)).to(model.cls_token.device)
