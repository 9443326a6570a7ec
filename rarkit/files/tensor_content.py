"""The numbers of tensors as bytes, and a digest that says whether those of a file are the ones that were written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from rarkit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
AGAIN = "Export it again, or ask those who made it."
"""What to do about an exported file that is damaged."""


def content(tensor: Tensor) -> memoryview:
    """The numbers of a tensor as they lie in a file: a view of those of a contiguous tensor on the CPU, else a copy."""
    import torch

    numbers = tensor.detach().cpu().contiguous().reshape(-1)
    return numbers.view(torch.uint8).numpy().data if numbers.numel() else memoryview(b"")


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors in the order of their names: of the name, dtype and shape of each, and its numbers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]).encode())
        digest.update(content(tensor))
    return digest.hexdigest()


def check_digest(tensors: Mapping[str, Tensor], digest: str, place: str) -> None:
    """Raises WeightsError if the tensors of an exported file are not those that it was written with."""
    if digest_of(tensors) != digest:
        raise WeightsError(f"{place} is damaged (its arrays are not those that were written). {AGAIN}")
