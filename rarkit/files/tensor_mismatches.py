"""Whether the tensors of a file fit a network, and if not, how they differ: in sizes that users know, else by name and shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rarkit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 3
"""Number of names that an error lists before it gives the number of remaining ones."""
Sizes = Callable[[Mapping[str, "Tensor"]], dict[str, int]]
"""Reads the sizes of a network off its tensors, each under a word that follows a number: ``{"classes": 1000}``.

Sizes that the tensors do not show, because they are of something else, are 0 or left out."""


def no_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """For networks without sizes that a user can choose."""
    return {}


def check_tensors(
    place: str | Path,
    network: str,
    expected: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    cure: Callable[[Mapping[str, int]], str],
    sizes: Sizes = no_sizes,
) -> None:
    """Raises WeightsError unless tensors have the names, shapes and kinds of dtype that a network expects.

    Args:
        place: the file, for the message.
        network: what the tensors are for, such as ``"model"``.
        expected: the network's own state dict.
        tensors: those of the file.
        cure: gives the last sentence of the message, from those sizes of the file that differ.
        sizes: reads sizes off the tensors; if any differ, the message names them instead of tensors.
    """
    complaints = misfits(expected, tensors)
    if not complaints:
        return
    theirs, ours = sizes(tensors), sizes(expected)
    different = {word: number for word, number in theirs.items() if number > 0 and ours.get(word, number) != number}
    if different:
        complaints = ["it has " + ", ".join(f"{number:,} {word} instead of {ours[word]:,}" for word, number in different.items())]
    raise WeightsError(f"{place} does not fit the {network}: {'; '.join(complaints)}. {cure(different)}".rstrip())


def misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What is missing, unexpected, of another shape or kind of dtype; empty if the tensors fit."""
    complaints = []
    if missing := [name for name in expected if name not in tensors]:
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := [name for name in tensors if name not in expected]:
        complaints.append(f"unexpected: {_some(unexpected)}")
    shared = [name for name in expected if name in tensors]
    if misshapen := [
        f"{name} is {_shape(tensors[name])} instead of {_shape(expected[name])}"
        for name in shared
        if tensors[name].shape != expected[name].shape
    ]:
        complaints.append(f"wrong shape: {_some(misshapen)}")
    if mistyped := [
        f"{name} is {tensors[name].dtype}"
        for name in shared
        if tensors[name].is_floating_point() != expected[name].is_floating_point()
    ]:
        complaints.append(f"wrong dtype: {_some(mistyped)}")
    return complaints


def length(tensors: Mapping[str, Tensor], name: str, axis: int) -> int:
    """The length of an axis of a tensor; 0 if there is none."""
    return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else 0


def numbered(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """The number of modules in a list: one more than the largest N of names like ``<prefix>N.…``; 0 if there are none."""
    numbers = (name[len(prefix) :].split(".")[0] for name in tensors if name.startswith(prefix))
    return max((int(number) + 1 for number in numbers if number.isdecimal()), default=0)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shape(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape) or "a scalar"
