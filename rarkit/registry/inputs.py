"""Checks of what callers hand to functions and parts; ``contract`` has those of what parts return."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.errors import GridError, UserError
from rarkit.registry.shown import shown

MOST_INDICES = 2**32
"""Steps and samples' indices are words of 32 bits to the random numbers."""
SEEDS = -(2**63), 2**64 - 1
"""The lowest and the highest seed that torch takes."""


def whole(name: str, value: Any, lowest: int = 0, highest: int = MOST_INDICES - 1) -> int:
    """A whole number within bounds, both included.

    Raises:
        UserError: it is something else, or outside.
    """
    if not is_whole(value) or not lowest <= int(value) <= highest:
        raise UserError(f"{name} is {value!r}; it must be a whole number from {lowest:,} to {highest:,}")
    return int(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or of NumPy; 4.0 and True are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def probability(name: str, value: Any) -> float:
    """A number from 0 to 1.

    Raises:
        UserError: it is something else.
    """
    # A comparison with NaN is false.
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 <= float(value) <= 1.0:
        raise UserError(f"{name} is {value!r}; it must be a number from 0 to 1")
    return float(value)


def names(option: str, listed: Any) -> tuple[str, ...]:
    """The names in a list, tuple or whatever gives them; text is one name, not its letters.

    Raises:
        UserError: it is something else.
    """
    if isinstance(listed, str):
        return (listed,)
    if isinstance(listed, Iterable) and not isinstance(listed, Mapping | bytes):
        found = tuple(listed)
        if all(isinstance(name, str) for name in found):
            return found
        listed = found
    raise UserError(f'{option} is {shown(listed)}; pass a list of names, as in {option}=["…"]')


def place(option: str, value: Any) -> str:
    """A path or URL, as text.

    Raises:
        UserError: it is something else, or empty.
    """
    if isinstance(value, str | os.PathLike) and (text := os.fspath(value)) and isinstance(text, str):
        return text
    raise UserError(f"{option} is {shown(value)}; pass the path of a file or folder")


def sample_indices(indices: ArrayLike) -> NDArray[np.int64]:
    """Samples' indices as (B,) int64.

    Raises:
        UserError: they are not whole numbers from 0, or not one-dimensional.
    """
    index_B = np.asarray(indices)
    # An empty list is float64 to NumPy.
    if index_B.ndim != 1 or (index_B.size and not np.issubdtype(index_B.dtype, np.integer)):
        raise UserError(
            f"sample indices are {index_B.dtype} {index_B.shape}; they must be integers from 0, one per sample: (B,) int64"
        )
    if index_B.size and not 0 <= int(index_B.min()) <= int(index_B.max()) < MOST_INDICES:
        raise UserError(
            f"sample indices go from {index_B.min()} to {index_B.max()}; they must be integers from 0 to {MOST_INDICES - 1:,}"
        )
    return index_B.astype(np.int64)


def given(values: Any) -> str:
    """What a caller gave in place of an array, for messages: dtype and shape, or whatever else it is."""
    if isinstance(values, type):
        return f"the class {values.__name__}"
    if isinstance(values, list | tuple) and values:
        try:
            values = np.asarray(values)
        except (TypeError, ValueError):
            return shown(values)
    if hasattr(values, "dtype") and hasattr(values, "shape"):
        return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"
    return shown(values)


def scan_order(order: ArrayLike) -> NDArray[np.int64]:
    """An order of any integer dtype as (L,) int64.

    Raises:
        GridError: it is not a permutation of 0 … L − 1.
    """
    try:
        order_L = np.asarray(order)
    except ValueError as error:
        raise _no_order(order) from error
    if order_L.ndim != 1 or not order_L.size or not np.issubdtype(order_L.dtype, np.integer):
        raise _no_order(order)
    if not np.array_equal(np.sort(order_L), np.arange(order_L.size)):
        raise GridError(
            f"the order does not visit each of its {order_L.size} cells exactly once. Pass what a scan order's "
            "order(height, width) returns."
        )
    return order_L.astype(np.int64)


def _no_order(order: object) -> GridError:
    return GridError(
        f"the order is {given(order)}; pass the raster index visited at each step, (L,) int64, as a scan order's "
        "order(height, width) returns it"
    )


def check_tensor(taker: str, what: str, value: Any, dtype: str, shape: Sequence[int | str], cure: str = "") -> None:
    """Checks that a value is a tensor of a dtype and shape; reads none of its numbers.

    Args:
        taker: who takes it, as the message begins: ``"tokenizer 'pixel'"``.
        what: the tensor's name in the signature.
        value: the value.
        dtype: as in ``torch.<dtype>``.
        shape: the length of each axis; a letter stands for any.
        cure: what to do, as the end of a sentence.

    Raises:
        UserError: it is something else.
    """
    import torch

    if isinstance(value, torch.Tensor):
        fits = len(shape) == value.ndim and all(
            isinstance(wanted, str) or wanted == side for wanted, side in zip(shape, value.shape, strict=True)
        )
        if fits and value.dtype == getattr(torch, dtype):
            return
        found = given(value)
    else:
        found = type(value).__name__
    sides = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    raise UserError(f"{taker} was given {what} of {found}; it must be a tensor of {dtype} ({sides}){cure and f': {cure}'}")
