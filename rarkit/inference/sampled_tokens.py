"""Sampling some images of given classes: which, in which batches, with which noise.

Shape letters: N images, L tokens per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.inference.source import Source
from rarkit.recipe.classes import SPREAD, find_classes, spread
from rarkit.registry.inputs import given, is_whole
from rarkit.runtime.progress import Reporter
from rarkit.sampling.settings import SampleSettings

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.sampling.decoder import Decodable

INDICES_PER_CLASS = 100_000
"""Sample k of class c has noise index c · 100,000 + k, so that it does not depend on the other samples."""
Classes = Sequence[str | int] | str | int | None
"""Labels or names; one of them alone; None for ten, evenly spaced."""


def labels_to_sample(source: Source, classes: Classes, per_class: int) -> list[int]:
    """The labels of the classes to sample. Raises UserError if there is no such class, or too many images of each."""
    if not is_whole(per_class) or not 1 <= per_class <= INDICES_PER_CLASS:
        raise UserError(f"there cannot be {per_class!r} images per class: choose 1 to {INDICES_PER_CLASS:,}")
    names = source.experiment.images.class_names
    if classes is None:
        return spread(len(names))
    # Arrays and tensors are taken as what they hold.
    listed: Any = classes.tolist() if hasattr(classes, "tolist") else classes
    wanted = [listed] if isinstance(listed, str) or is_whole(listed) else listed
    if isinstance(wanted, Iterable) and not isinstance(wanted, Mapping):
        wanted = list(wanted)
        if wanted and all(isinstance(one, str) or is_whole(one) for one in wanted):
            return find_classes(wanted, names)
    raise UserError(f"the classes are {given(classes)}; pass labels or names, or None for {SPREAD} classes, evenly spaced")


def sampling_seed(source: Source, settings: SampleSettings) -> int:
    """The seed that a recipe samples with."""
    return source.experiment.recipe.seed if settings.seed is None else settings.seed


def sampled_tokens(
    model: Decodable,
    settings: SampleSettings,
    order_L: NDArray[np.int64],
    labels_N: NDArray[np.int64],
    indices_N: NDArray[np.int64],
    seed: int,
    reporter: Reporter,
) -> NDArray[np.int64]:
    """Sampled tokens (N, L) int64 in raster order."""
    import torch

    from rarkit.sampling.generation import generate

    order, size, parts = torch.from_numpy(order_L), settings.batch_size, []
    with reporter.task("sample", len(labels_N) * len(order_L), "tokens") as advance, torch.inference_mode():
        for start in range(0, len(labels_N), size):
            batch = slice(start, start + size)
            labels_B, indices_B = torch.from_numpy(labels_N[batch]), indices_N[batch]

            def on_step(step: int, tokens_BL: Tensor, count: int = len(labels_B)) -> None:
                advance(count)

            tokens_BL = generate(model, labels_B, order=order, choice=settings, seed=seed, indices=indices_B, on_step=on_step)
            parts.append(tokens_BL.cpu().numpy())
    return np.concatenate(parts)
