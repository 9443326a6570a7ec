"""Rows to train on that are in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class InMemory:
    """Rows of an array, as ``rarkit.training.next_token.Rows``."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        return self.values[indices]
