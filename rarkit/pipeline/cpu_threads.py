"""The number of CPU threads: one for recipes too small to gain from more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rarkit.recipe.experiment import Experiment

SMALL_ACTIVATION, SMALL_IMAGE = 2**18, 64 * 64


def is_small(experiment: Experiment) -> bool:
    """Whether images and activations are so small that synchronizing threads costs more than they save."""
    settings = experiment.recipe.train or experiment.recipe.sample
    entries = (settings.batch_size if settings is not None else 1) * experiment.config.seq_len
    height, width, _ = experiment.image_shape
    return height * width <= SMALL_IMAGE and entries * experiment.config.hidden_size <= SMALL_ACTIVATION


@contextmanager
def sensible_threads(experiment: Experiment | None, device: str) -> Iterator[None]:
    """One CPU thread for a small recipe, torch's default for any other.

    Threads that synchronize after every small operation make a run up to ten times slower on a busy machine, and gain little on an
    idle one.
    """
    if device != "cpu" or experiment is None or not is_small(experiment):
        yield
        return
    import threadpoolctl
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # NumPy's linear algebra has its own threads.
        with threadpoolctl.threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
