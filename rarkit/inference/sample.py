"""``rarkit.sample``: images of chosen classes, from a run or a checkpoint.

Shape letters: N images, L tokens of an image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.inference.classes import find_classes, spread
from rarkit.inference.drawing import Drawing
from rarkit.inference.source import Source, changed, open_source
from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.stages.sample import prepared
from rarkit.stages.tokenize import decoded

if TYPE_CHECKING:
    from rarkit.sampling.decoder import Decodable

INDICES_PER_CLASS = 100_000
"""Sample k of class c is drawn with the noise of index c · 100,000 + k, so it does not depend on what else is drawn."""
PER_CLASS = 8


def sample(
    source: str | os.PathLike[str],
    classes: Sequence[str | int] | None = None,
    per_class: int = PER_CLASS,
    *,
    seed: int | None = None,
    preset: str | None = None,
    tokenizer: str | None = None,
    guidance_scale: float | None = None,
    guidance_power: float | None = None,
    scan_order: str | None = None,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Drawing:
    """Draws images of chosen classes. Settings left at None are those of the run's recipe, or the released ones of the preset.

    Sample k of a class depends on the seed, its class and k alone, not on the batch size (in float32, up to ties) or on what other
    classes and images are drawn.

    Args:
        source: a run's folder, ``runs/<recipe>``, or a checkpoint: ``.bin`` or ``.safetensors``, a path or any fsspec URL.
        classes: labels or names; if None, some of all, evenly spaced.
        per_class: images of each class, at most 100,000.
        seed: any integer.
        preset: the size of a checkpoint, ``"rar_b"`` to ``"rar_xxl"``, with its released sampling settings.
        tokenizer: for a checkpoint, the weights of the MaskGIT-VQGAN; a path or any fsspec URL.
        guidance_scale: the scale of the source's guidance schedule.
        guidance_power: guidance becomes the power-cosine schedule with this power.
        scan_order: the name of a scan order, for a model that was trained on any (by random permutations, say).
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` takes CUDA if there is any.
        quiet: no progress on stderr.
        **settings: any other setting of a recipe's ``[sample]`` table, by name: ``temperature``, ``top_k``, ``top_p``,
            ``precision`` (of a checkpoint float32 unless given), ``batch_size``, …

    Raises:
        UserError: there is no such class or preset, something is missing or out of range.
        WeightsError: a file is missing, damaged or does not fit.
        StoreError: the run's model is no longer in its store.
    """
    opened = changed(
        open_source(source, preset, tokenizer),
        scan_order,
        {"scale": guidance_scale, "power": guidance_power},
        **settings,
    )
    return draw(opened, classes, per_class, seed=seed, device=device, reporter=Reporter(quiet=quiet))


def draw(
    source: Source,
    classes: Sequence[str | int] | None,
    per_class: int,
    *,
    seed: int | None,
    device: str,
    reporter: Reporter,
) -> Drawing:
    """``sample``, from a source that is already open."""
    if not 1 <= per_class <= INDICES_PER_CLASS:
        raise UserError(f"{per_class} images of each class: give 1 to {INDICES_PER_CLASS:,}")
    experiment, names = source.experiment, source.experiment.images.class_names
    labels = find_classes(classes, names) if classes else spread(len(names))
    seed = experiment.recipe.seed if seed is None else seed
    device = resolve_device(device)
    source.check_ready(device)
    labels_N = np.repeat(np.array(labels, dtype=np.int64), per_class)
    indices_N = labels_N * INDICES_PER_CLASS + np.tile(np.arange(per_class), len(labels))
    with sensible_threads(experiment, device):
        # Both before the long part, so that a missing file is noticed at once.
        model, tokenizer = prepared(source.model(device), source.settings), source.tokenizer(device)
        tokens_NL = _tokens(model, source, labels_N, indices_N, seed, reporter)
        with reporter.task("decode", len(labels_N), "images") as advance:
            parts = []
            for images in decoded(tokenizer, tokens_NL, experiment.grid, source.settings.batch_size):
                parts.append(images)
                advance(len(images))
    return Drawing(
        images_NHWC=np.concatenate(parts),
        labels_N=labels_N,
        tokens_NL=tokens_NL,
        classes=tuple(labels),
        class_names=tuple(names[label] for label in labels),
        per_class=per_class,
        grid=experiment.grid,
        order_L=experiment.order_L,
        seed=seed,
        scan_order=experiment.recipe.scan_order.model_dump(mode="json"),
        settings=source.settings,
    )


def _tokens(
    model: Decodable,
    source: Source,
    labels_N: NDArray[np.int64],
    indices_N: NDArray[np.int64],
    seed: int,
    reporter: Reporter,
) -> NDArray[np.int64]:
    """(N, L) tokens in raster order."""
    import torch

    from rarkit.sampling.generation import generate

    settings, order_L = source.settings, torch.from_numpy(source.experiment.order_L)
    parts = []
    with reporter.task("sample", len(labels_N) * len(order_L), "tokens") as advance, torch.inference_mode():
        for start in range(0, len(labels_N), settings.batch_size):
            chosen = slice(start, start + settings.batch_size)
            count = len(labels_N[chosen])
            tokens_BL = generate(
                model,
                torch.from_numpy(labels_N[chosen]),
                order=order_L,
                choice=settings,
                seed=seed,
                indices=indices_N[chosen],
                on_step=lambda step, tokens_BL, count=count: advance(count),  # type: ignore[misc]
            )
            parts.append(tokens_BL.cpu().numpy())
    return np.concatenate(parts)
