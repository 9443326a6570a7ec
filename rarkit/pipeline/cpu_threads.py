"""Processor threads, set sensibly: none beside the first where there is too little to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rarkit.recipe.experiment import Experiment

SMALL_ACTIVATION, SMALL_IMAGE = 2**18, 64 * 64


def is_small(experiment: Experiment) -> bool:
    """Whether images and activations are so small that threads cost more in waiting for each other than they save in work."""
    settings = experiment.recipe.train or experiment.recipe.sample
    entries = (settings.batch_size if settings is not None else 1) * experiment.config.seq_len
    height, width, _ = experiment.image_shape
    return height * width <= SMALL_IMAGE and entries * experiment.config.hidden_size <= SMALL_ACTIVATION


@contextmanager
def sensible_threads(experiment: Experiment | None, device: str) -> Iterator[None]:
    """One thread on the CPU for a small recipe; as many as there are for any other.

    On a machine with anything else to do, threads that wait for each other after every small operation make the whole ten times as
    slow; on an idle one, they gain little.
    """
    if device != "cpu" or experiment is None or not is_small(experiment):
        yield
        return
    import threadpoolctl
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # NumPy's linear algebra has threads of its own.
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
