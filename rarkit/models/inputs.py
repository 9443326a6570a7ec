"""What ``forward`` of a model is given: shapes and dtypes always, values where looking at them makes nobody wait.

Shape letters: B batch, L tokens of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rarkit.errors import GridError, UserError
from rarkit.models.config import ModelConfig
from rarkit.registry.inputs import check_tensor


def check_inputs(
    config: ModelConfig,
    tokens_BL: Tensor,
    labels_B: Tensor,
    orders_BL: Tensor,
    dropped_B: Tensor | None,
    mask_seeds_B: Tensor | None,
    *,
    training: bool,
) -> None:
    """Checks the arguments of ``ImageModel.forward``, whose errors these are.

    Values are not read while a graph is traced, nor in training on a GPU, where a step would have to wait for them.
    """
    taker, length = "the model", config.seq_len
    check_tensor(taker, "tokens_BL", tokens_BL, "int64", ("B", length), "the code of each cell, in raster order")
    batch = len(tokens_BL)
    check_tensor(taker, "labels_B", labels_B, "int64", (batch,), "one class per image")
    one_order = isinstance(orders_BL, Tensor) and orders_BL.ndim == 1
    shape = (length,) if one_order else (batch, length)
    check_tensor(taker, "orders_BL", orders_BL, "int64", shape, "the raster index visited at each step")
    if dropped_B is not None:
        check_tensor(taker, "dropped_B", dropped_B, "bool", (batch,), "true for images without a class")
    if mask_seeds_B is not None:
        check_tensor(taker, "mask_seeds_B", mask_seeds_B, "int64", (batch,), "one seed per image")
    if _may_look(training, tokens_BL, labels_B, orders_BL):
        _check_values(config, tokens_BL, labels_B, orders_BL)


def _may_look(training: bool, *tensors: Tensor) -> bool:
    if torch.compiler.is_compiling() or any(type(tensor) is not Tensor or tensor.is_meta for tensor in tensors):
        return False
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return True
    return not (training or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()))


def _check_values(config: ModelConfig, tokens_BL: Tensor, labels_B: Tensor, orders_BL: Tensor) -> None:
    orders_ML = orders_BL.reshape(-1, config.seq_len)
    visited_ML = torch.zeros_like(orders_ML, dtype=torch.bool)
    visited_ML.scatter_(1, orders_ML.clamp(0, config.seq_len - 1), torch.ones_like(visited_ML))
    flags = (
        _outside(tokens_BL, config.codebook_size).any(),
        _outside(labels_B, config.num_classes).any(),
        _outside(orders_ML, config.seq_len).any() | ~visited_ML.all(),
    )
    # Read together, because on a GPU each reading waits.
    bad_tokens, bad_labels, bad_orders = torch.stack([flag.to(tokens_BL.device) for flag in flags]).tolist()
    if bad_tokens:
        raise UserError(_first("token", tokens_BL, config.codebook_size, "the model's codes"))
    if bad_labels:
        raise UserError(
            _first("label", labels_B, config.num_classes, "the model's classes"),
            "For images without a class pass any class, and true in dropped_B.",
        )
    if bad_orders:
        raise GridError(
            f"an order in orders_BL does not visit each of the {config.seq_len} cells exactly once. Pass what a scan order's "
            "order(height, width) or rarkit.training.draw_orders returns."
        )


def _outside(values: Tensor, count: int) -> Tensor:
    return (values < 0) | (values >= count)


def _first(what: str, values: Tensor, count: int, whole: str) -> str:
    wrong: Any = values[_outside(values, count)][0].item()
    return f"{what} {wrong} is not one of {whole}, 0 … {count - 1}"
