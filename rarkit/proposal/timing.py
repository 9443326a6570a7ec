"""How long a proposed recipe takes on this machine: training and sampling, and the steps of a tokenizer that learns."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import RarkitWarning
from rarkit.estimate.this_machine import measured
from rarkit.images import ImageBlock, ImageReader
from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.recipe.experiment import Experiment
from rarkit.registry.loader import parts

TIMED_STEPS, FEWEST_IMAGES = 4, 64
"""Steps of a tokenizer that are timed, and images that it is trained on."""


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


TokenizerClock = Callable[[str, dict[str, Any], Experiment], float]
"""Says how long a step of a tokenizer takes: its name, its settings without steps, and an experiment with its images."""


def measured_tokenizer(name: str, settings: dict[str, Any], experiment: Experiment) -> float:
    """Seconds of a step of the training of a tokenizer, on images of noise, on the device and threads that a run would take."""
    from rarkit.engine.learning import Learning
    from rarkit.runtime.devices import resolve_device

    kind = parts().tokenizers[name]
    quick = {"steps": TIMED_STEPS} | ({"kmeans_iterations": 1} if "kmeans_iterations" in kind.model_fields else {})
    part = kind(**settings | quick)
    # Enough patches for all codes, since no two patches of noise are alike.
    count = max(FEWEST_IMAGES, 2 * part.codebook_size() // experiment.config.seq_len)
    images_NHWC = np.random.default_rng(0).integers(0, 256, (count, *experiment.image_shape), np.uint8)
    device = resolve_device("auto")
    times: list[float] = []

    def note(entry: Mapping[str, Any]) -> None:
        if "loss" in entry:
            times.append(perf_counter())

    with warnings.catch_warnings(), sensible_threads(experiment, device):
        # That a codebook of noise has collapsed, say.
        warnings.simplefilter("ignore", RarkitWarning)
        part.learn(_Images(images_NHWC), 0, Learning(device=device, log=note))
    return float(np.median(np.diff(times)))


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
