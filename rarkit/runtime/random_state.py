"""The random state that a whole process shares, Python's, NumPy's and torch's: rarkit leaves it to its user.

rarkit itself draws from none of these generators; libraries and parts may.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Around work in which libraries and parts run: afterwards all shared generators are where they were, whatever drew from them.

    On a GPU that the work was the first to use, they are where a first use would find them.
    """
    puts_back = _generators()
    before = len(puts_back)
    try:
        yield
    finally:
        for put_back in puts_back:
            put_back()
        # torch or its GPUs may have been started meanwhile.
        for start_again in _started_since(before):
            start_again()


def _generators() -> list[Callable[[], Any]]:
    """For each shared generator of what is loaded, what puts it back into its state of now; torch's after the two others."""
    puts_back: list[Callable[[], Any]] = [
        partial(random.setstate, random.getstate()),
        partial(np.random.set_state, np.random.get_state()),
    ]
    return puts_back + [partial(generator.set_state, generator.get_state()) for generator in _of_torch()]


def _started_since(count: int) -> list[Callable[[], Any]]:
    """For each generator of torch that was not there when ``count`` ones were, what starts it again from its seed."""
    started = _of_torch()[count - 2 :]
    return [partial(generator.manual_seed, generator.initial_seed()) for generator in started]


def _of_torch() -> list[Any]:
    """torch's shared generators: the CPU's first, and those of GPUs that are in use; none if torch is not loaded."""
    torch: Any = sys.modules.get("torch")
    if getattr(torch, "default_generator", None) is None:
        return []
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators += torch.cuda.default_generators
    elif torch.backends.mps.is_available():
        generators.append(torch.mps._get_default_mps_generator())
    return generators
