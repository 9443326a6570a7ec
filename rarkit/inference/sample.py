"""``rarkit.sample``: samples images of given classes from a run, a bundle or a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rarkit.inference.drawing import Drawing
from rarkit.inference.pipeline import PER_CLASS, Pipeline
from rarkit.inference.sampled_tokens import labels_to_sample
from rarkit.inference.source import changed, open_source
from rarkit.pipeline.results import Run
from rarkit.registry.exits import exits_are_errors
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept


@exits_are_errors()
@random_state_kept()
def sample(
    source: Run | str | os.PathLike[str],
    classes: Sequence[str | int] | str | int | None = None,
    per_class: int = PER_CLASS,
    *,
    seed: int | None = None,
    preset: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
    guidance_scale: float | None = None,
    guidance_power: float | None = None,
    scan_order: str | None = None,
    unset: Sequence[str] = (),
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Drawing:
    """Samples images of given classes: ``rarkit.load`` and ``Pipeline.sample`` in one call.

    Settings default to those of the run's recipe, or to the released ones of the preset.

    Sample k of a class depends only on the seed, its class and k, not on the other classes and images sampled, and in float32 (up
    to ties) not on the batch size.

    Args:
        source: a run, or its folder, ``runs/<recipe>``; or path or fsspec URL of a bundle or a checkpoint, ``.bin`` or
            ``.safetensors``.
        classes: a label, name or synset id, or several; None for ten classes, evenly spaced.
        per_class: images per class, at most 100,000.
        seed: any integer; None for the seed that the recipe samples with.
        preset: size of a checkpoint, ``"rar_b"`` to ``"rar_xxl"``, with its released sampling settings.
        tokenizer: for a checkpoint, path or fsspec URL of the MaskGIT-VQGAN's weights.
        store: for a run, path or fsspec URL of its store; None for the one in its receipt.
        guidance_scale: scale of the guidance schedule.
        guidance_power: use power-cosine guidance with this power.
        scan_order: name of a scan order other than the model's own; the model should have been trained with random permutations.
        unset: settings of the recipe's ``[sample]`` table that go back to their default, such as ``"top_k"``.
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA or MPS if available.
        quiet: show no progress on stderr.
        **settings: any other setting of a recipe's ``[sample]`` table, by name: ``temperature``, ``top_k``, ``top_p``,
            ``precision`` (float32 for a checkpoint unless given), ``batch_size``, …

    Raises:
        UserError: a class or preset does not exist, or an argument is missing or out of range.
        WeightsError: a file is missing or damaged, or does not fit the model.
        StoreError: the run's model is no longer in the store, or there is no such store.
    """
    changes = {"scale": guidance_scale, "power": guidance_power}
    opened = changed(open_source(source, preset, tokenizer, store), scan_order, changes, settings, unset)
    # Before anything is loaded.
    labels_to_sample(opened, classes, per_class)
    pipeline = Pipeline(opened, resolve_device(device, draws=True))
    return pipeline.draw(classes, per_class, opened.settings, seed=seed, reporter=Reporter(quiet=quiet))
