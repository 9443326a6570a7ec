"""Processor threads, set sensibly: none beside the first where there is too little to share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rarkit.recipe.schema import Recipe
from rarkit.stages.base import model_grid
from rarkit.stages.train import rar_config

SMALL_ACTIVATION, SMALL_IMAGE = 2**18, 64 * 64


def is_small(recipe: Recipe) -> bool:
    """Whether images and activations are so small that threads cost more in waiting for each other than they save in work."""
    info, settings = recipe.dataset.info(), recipe.train or recipe.sample
    height, width = model_grid(recipe)
    batch = settings.batch_size if settings is not None else 1
    return info.height * info.width <= SMALL_IMAGE and batch * height * width * rar_config(recipe).hidden_size <= SMALL_ACTIVATION


@contextmanager
def sensible_threads(recipe: Recipe, device: str) -> Iterator[None]:
    """One thread on the CPU for a small recipe; as many as there are for any other.

    On a machine with anything else to do, threads that wait for each other after every small operation make the whole ten times as
    slow; on an idle one, they gain little.
    """
    if device != "cpu" or not is_small(recipe):
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
