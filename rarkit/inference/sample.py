"""``rarkit.sample``: samples images of given classes from a run or a checkpoint.

Shape letters: N images, L tokens per image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import UserError
from rarkit.inference.drawing import Drawing
from rarkit.inference.source import Source, changed, open_source
from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.recipe.classes import find_classes, spread
from rarkit.registry.exits import exits_are_errors
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept
from rarkit.stages.sample import prepared
from rarkit.stages.tokenize import decoded

if TYPE_CHECKING:
    from rarkit.sampling.decoder import Decodable

INDICES_PER_CLASS = 100_000
"""Sample k of class c has noise index c · 100,000 + k, so that it does not depend on the other samples."""
PER_CLASS = 8


@exits_are_errors()
@random_state_kept()
def sample(
    source: str | os.PathLike[str],
    classes: Sequence[str | int] | None = None,
    per_class: int = PER_CLASS,
    *,
    seed: int | None = None,
    preset: str | None = None,
    tokenizer: str | None = None,
    store: str | None = None,
    guidance_scale: float | None = None,
    guidance_power: float | None = None,
    scan_order: str | None = None,
    unset: Sequence[str] = (),
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Drawing:
    """Samples images of given classes. Settings default to those of the run's recipe, or to the released ones of the preset.

    Sample k of a class depends only on the seed, its class and k, not on the other classes and images sampled, and in float32 (up
    to ties) not on the batch size.

    Args:
        source: a run's folder, ``runs/<recipe>``, or path or fsspec URL of a checkpoint, ``.bin`` or ``.safetensors``.
        classes: labels, names or synset ids, as in a recipe's ``sample.classes``; None for ten classes, evenly spaced.
        per_class: images per class, at most 100,000.
        seed: any integer; None for the seed that the recipe samples with.
        preset: size of a checkpoint, ``"rar_b"`` to ``"rar_xxl"``, with its released sampling settings.
        tokenizer: for a checkpoint, path or fsspec URL of the MaskGIT-VQGAN's weights.
        store: for a run, path or fsspec URL of its store; None for the one in its receipt.
        guidance_scale: scale of the guidance schedule.
        guidance_power: use power-cosine guidance with this power.
        scan_order: name of a scan order other than the model's own; the model should have been trained with random permutations.
        unset: settings of the recipe's ``[sample]`` table that go back to their default, such as ``"top_k"``.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA if available.
        quiet: show no progress on stderr.
        **settings: any other setting of a recipe's ``[sample]`` table, by name: ``temperature``, ``top_k``, ``top_p``,
            ``precision`` (float32 for a checkpoint unless given), ``batch_size``, …

    Raises:
        UserError: a class or preset does not exist, or an argument is missing or out of range.
        WeightsError: a file is missing or damaged, or does not fit the model.
        StoreError: the run's model is no longer in the store, or there is no such store.
    """
    opened = changed(
        open_source(source, preset, tokenizer, store),
        scan_order,
        {"scale": guidance_scale, "power": guidance_power},
        settings,
        unset,
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
    """``sample`` from a source that is already open."""
    if not 1 <= per_class <= INDICES_PER_CLASS:
        raise UserError(f"there cannot be {per_class} images per class: choose 1 to {INDICES_PER_CLASS:,}")
    experiment, names = source.experiment, source.experiment.images.class_names
    labels = find_classes(classes, names) if classes else spread(len(names))
    if seed is None:
        seed = experiment.recipe.seed if source.settings.seed is None else source.settings.seed
    device = resolve_device(device)
    source.check_ready(device)
    labels_N = np.repeat(np.array(labels, dtype=np.int64), per_class)
    indices_N = labels_N * INDICES_PER_CLASS + np.tile(np.arange(per_class), len(labels))
    with sensible_threads(experiment, device):
        # Load both before sampling, so that a missing file is reported right away.
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
    """Sampled tokens (N, L) int64 in raster order."""
    import torch

    from rarkit.sampling.generation import generate

    settings, order_L = source.settings, torch.from_numpy(source.experiment.order_L)
    parts = []
    with reporter.task("sample", len(labels_N) * len(order_L), "tokens") as advance, torch.inference_mode():
        for start in range(0, len(labels_N), settings.batch_size):
            batch = slice(start, start + settings.batch_size)
            count = len(labels_N[batch])
            tokens_BL = generate(
                model,
                torch.from_numpy(labels_N[batch]),
                order=order_L,
                choice=settings,
                seed=seed,
                indices=indices_N[batch],
                on_step=lambda step, tokens_BL, count=count: advance(count),  # type: ignore[misc]
            )
            parts.append(tokens_BL.cpu().numpy())
    return np.concatenate(parts)
