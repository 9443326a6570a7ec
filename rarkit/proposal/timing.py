"""How long a proposed recipe takes on this machine: training and sampling, and the steps of a tokenizer that learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from rarkit.estimate.this_machine import measured
from rarkit.images import ImageBlock, ImageReader
from rarkit.recipe.experiment import Experiment
from rarkit.registry.loader import parts

FIRST, SECOND = 2, 6
"""Steps of two trainings of a tokenizer: the difference of their times is that of the steps between."""


@final
class Seconds(NamedTuple):
    """Measured or assumed times."""

    step: float
    """Of a step of training."""
    sampling: float
    """Of all samples."""


Clock = Callable[[Experiment], Seconds]
"""Says how long the training and the sampling of an experiment take."""


def measured_here(experiment: Experiment) -> Seconds:
    """Times a few steps and a batch of samples on this machine."""
    here, train = measured(experiment), experiment.recipe.train
    assert train is not None
    return Seconds((here.train_seconds or 0.0) / train.steps, here.sample_seconds or 0.0)


TokenizerClock = Callable[[str, dict[str, Any], NDArray[np.uint8]], float]
"""Says how long a step of a tokenizer takes: its name, its settings without steps, and images."""


def measured_tokenizer(name: str, settings: dict[str, Any], images_NHWC: NDArray[np.uint8]) -> float:
    """Seconds of a step of the training of a tokenizer."""
    part = parts().tokenizers[name]
    times = []
    for steps in (FIRST, SECOND):
        began = perf_counter()
        part(**settings | {"steps": steps}).fit(_Images(images_NHWC), 0)
        times.append(perf_counter() - began)
    return max(1e-3, (times[1] - times[0]) / (SECOND - FIRST))


@final
class _Images(ImageReader):
    def __init__(self, images_NHWC: NDArray[np.uint8]) -> None:
        self._images_NHWC = images_NHWC

    def __len__(self) -> int:
        return len(self._images_NHWC)

    def blocks(self, start: int, stop: int, rows: int) -> Iterator[ImageBlock]:
        for first in range(start, stop, rows):
            images_NHWC = self._images_NHWC[first : min(stop, first + rows)]
            yield ImageBlock(images_NHWC, np.zeros(len(images_NHWC), np.int64))
