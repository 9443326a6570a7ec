"""What ``generate`` and its like are given, checked and on the model's device.

Shape letters: B batch, L tokens of an image, M tokens outside the codebook.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rarkit.errors import GridError, UserError
from rarkit.registry.inputs import check_tensor, given, sample_indices
from rarkit.runtime.devices import WITHOUT_FLOAT64
from rarkit.sampling.decoder import Decodable
from rarkit.sampling.sample_noise import noise


def device_of(model: Decodable) -> torch.device:
    return next(model.network.parameters()).device


def order_of(order: ArrayLike | Tensor, length: int, device: torch.device) -> Tensor:
    """An order as (L,) int64 on a device.

    Raises:
        GridError: it is not a permutation of 0 … L − 1.
    """
    order_L = _whole_numbers(order, device)
    if order_L is None or order_L.shape != (length,):
        raise GridError(
            f"the model has {length} tokens per image, but the order is {given(order)}. Pass the raster index visited at each "
            f"step, ({length},) int64, as a scan order's order(height, width) returns it."
        )
    if not torch.equal(order_L.sort().values, torch.arange(length, device=order_L.device)):
        raise GridError(
            f"the order does not visit each of the {length} cells exactly once. Pass what a scan order's order(height, width) "
            "returns."
        )
    return order_L


def labels_of(model: Decodable, labels: ArrayLike | Tensor) -> Tensor:
    """Labels as (B,) int64 on the model's device.

    Raises:
        UserError: one is not a class of the model.
    """
    labels_B = _whole_numbers(labels, device_of(model))
    if labels_B is None or labels_B.ndim != 1:
        raise UserError(f"the labels are {given(labels)}; pass one class id per sample, (B,) int64")
    wrong = [label for label in labels_B.tolist() if not 0 <= label < model.sizes.num_classes]
    if wrong:
        raise UserError(f"label {wrong[0]} is not one of the model's classes, 0 … {model.sizes.num_classes - 1}")
    return labels_B


def _whole_numbers(values: ArrayLike | Tensor, device: torch.device) -> Tensor | None:
    """Whole numbers as int64 on a device; None of anything else. True is none."""
    if isinstance(values, Tensor):
        tensor = values
    else:
        try:
            tensor = torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError):
            return None
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return tensor.to(device).long() if is_whole else None


def uniforms_of(model: Decodable, batch: int, seed: int, indices: ArrayLike | None) -> Tensor:
    """The noise (B, L) float64 of the samples with these indices, or with 0 … B − 1.

    Raises:
        UserError: there is not one index per label, or they are not whole numbers from 0.
    """
    indices_B = sample_indices(np.arange(batch) if indices is None else indices)
    if indices_B.shape != (batch,):
        raise UserError(f"there are {batch} labels, but the sample indices have shape {indices_B.shape}; pass one index per label")
    uniforms_BL, device = torch.from_numpy(noise(seed, indices_B, model.sizes.seq_len)), device_of(model)
    return uniforms_BL if device.type in WITHOUT_FLOAT64 else uniforms_BL.to(device)


def forced_of(model: Decodable, batch: int, tokens: ArrayLike | Tensor, order_L: Tensor) -> Tensor:
    """Raster grids of tokens, checked, as (B, L) int64 in visiting order.

    Raises:
        UserError: they are not grids of the model's codes, one per label.
    """
    tokens_BL, codes = torch.as_tensor(tokens, device=order_L.device), model.sizes.codebook_size
    check_tensor("decode", "forced_tokens", tokens_BL, "int64", (batch, len(order_L)), "a grid of codes per label, in raster order")
    wrong_M = tokens_BL[(tokens_BL < 0) | (tokens_BL >= codes)]
    if len(wrong_M):
        raise UserError(f"token {int(wrong_M[0])} in forced_tokens is not one of the model's codes, 0 … {codes - 1}")
    return tokens_BL[:, order_L]
