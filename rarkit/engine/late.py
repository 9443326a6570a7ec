"""Numbers that come back from the device late and together, so that no step waits for one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, final

import torch
from torch import Tensor

LAG = 4
"""Steps by which numbers come late on a GPU. It is fixed, so that all processes learn of a step's numbers at the same step, and the
host is never further ahead."""


@final
class Late:
    """Passes the numbers of steps on, each with what the host knew of the step."""

    def __init__(self, device: str) -> None:
        """``device``: where the numbers are computed, a torch device string; those of a CPU are there at once."""
        self._lag = LAG if device.startswith("cuda") else 0
        self._waiting: deque[tuple[Mapping[str, Any], Tensor, Any]] = deque()

    def put(self, known: Mapping[str, Any], numbers_N: Tensor) -> None:
        """Adds the numbers of a step, (N,) on the device."""
        event = None
        if numbers_N.is_cuda:
            copy_N = torch.empty(numbers_N.shape, dtype=numbers_N.dtype, pin_memory=True)
            copy_N.copy_(numbers_N, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            numbers_N = copy_N
        self._waiting.append((known, numbers_N, event))

    def due(self, *, all_of_them: bool = False) -> Iterator[tuple[Mapping[str, Any], list[float]]]:
        """The steps that are ``LAG`` steps old, or all: what was known of them, and their numbers."""
        while len(self._waiting) > (0 if all_of_them else self._lag):
            known, numbers_N, event = self._waiting.popleft()
            if event is not None:
                event.synchronize()
            yield known, numbers_N.tolist()
