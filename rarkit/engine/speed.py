"""The line of a training's progress: the latest numbers, and how fast it goes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import final

WINDOW = 50
"""Steps over which the speed is averaged."""


@final
class Speed:
    """How fast a training goes, over the last steps and without the pauses between them."""

    def __init__(
        self, images: int, flops: int | None = None, peak: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begins to count.

        Args:
            images: of a step.
            flops: of a step; None if unknown.
            peak: FLOP/s of all devices together, by their data sheets; None if unknown.
            clock: seconds.
        """
        self._images, self._flops, self._peak, self._clock = images, flops, peak, clock
        self._paused = 0.0
        self._times = deque([clock()], maxlen=WINDOW + 1)

    def stepped(self) -> None:
        """Counts a step whose numbers have come back."""
        self._times.append(self._clock() - self._paused)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around what is no step: a checkpoint, a look at the training."""
        began = self._clock()
        try:
            yield
        finally:
            self._paused += self._clock() - began

    @property
    def seconds(self) -> float | None:
        """Seconds a step takes; None before the first has ended."""
        passed = self._times[-1] - self._times[0]
        return passed / (len(self._times) - 1) if passed > 0 else None

    @property
    def images(self) -> float | None:
        """Images per second of all processes together."""
        return None if self.seconds is None else self._images / self.seconds

    @property
    def utilisation(self) -> float | None:
        """Model FLOPs utilisation (MFU): FLOPs without recomputation, as a share of what the devices could do in that time."""
        if self.seconds is None or self._flops is None or self._peak is None:
            return None
        return self._flops / self.seconds / self._peak


def progress_line(record: Mapping[str, float], speed: Speed) -> str:
    """A log entry in a line: losses, random ratio, learning rate, norms of the gradients, images/s, MFU."""
    losses = [f"{_words(name)} {value:.3f}" for name, value in record.items() if name.endswith("loss")]
    ratio = [f"r {record['random_ratio']:.2f}"] if "random_ratio" in record else []
    rate = [f"rate {record['learning_rate']:.1e}"] if "learning_rate" in record else []
    norms = [f"{_words(name)} {value:.2f}" for name, value in record.items() if name.endswith("gradient_norm")]
    images = [] if speed.images is None else [f"{speed.images:,.0f} images/s"]
    share = [] if speed.utilisation is None else [f"MFU {100 * speed.utilisation:.0f} %"]
    return ", ".join([*losses, *ratio, *rate, *norms, *images, *share])


def _words(name: str) -> str:
    return name.replace("_norm", "").replace("_", " ")
