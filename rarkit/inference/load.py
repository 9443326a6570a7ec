"""``rarkit.load``: a trained model in one line."""

from __future__ import annotations

import os

from rarkit.inference.pipeline import Pipeline
from rarkit.inference.source import changed, open_source
from rarkit.pipeline.results import Run
from rarkit.registry.exits import exits_are_errors
from rarkit.runtime.devices import resolve_device
from rarkit.runtime.random_state import random_state_kept
from rarkit.scan_orders.base import ScanOrder
from rarkit.tokenizers.base import Tokenizer


@exits_are_errors()
@random_state_kept()
def load(
    source: Run | str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str | None = None,
    scan_order: str | ScanOrder | None = None,
    preset: str | None = None,
    tokenizer: str | os.PathLike[str] | Tokenizer | None = None,
    store: str | os.PathLike[str] | None = None,
) -> Pipeline:
    """A trained model with its tokenizer, scan order and class names, loaded once.

    Args:
        source: a ``Run``, which stands for its own outputs; a run's folder, ``runs/<name>``, for those in its receipt; path or
            fsspec URL of a bundle (``rarkit export RUN --bundle FILE``) or of a checkpoint (``.bin``, ``.safetensors``, …).
        device: ``"cpu"``, ``"cuda"``, …; ``"auto"`` uses CUDA or MPS if available.
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``; None for that of the recipe's ``[sample]`` (float32 for a
            checkpoint), in which the evaluation measures likelihoods too.
        scan_order: a scan order other than the model's own, or the name of one; the model should have been trained with random
            permutations.
        preset: size of a checkpoint, ``"rar_b"`` to ``"rar_xxl"`` (``rarkit.models.list_models()``).
        tokenizer: of a checkpoint: path or fsspec URL of the MaskGIT-VQGAN's weights, or a tokenizer that learns nothing.
        store: for a run's folder, path or fsspec URL of its store; None for the one in its receipt.

    Raises:
        UserError: the source is none of these, or an argument is missing, out of range or of another kind of source.
        WeightsError: a file is missing or damaged, or does not fit the model.
        StoreError: the run's model is no longer in its store.
        CapabilityError: a part cannot be used on the device.
    """
    changes = {} if precision is None else {"precision": precision}
    opened = changed(open_source(source, preset, tokenizer, store), scan_order, {}, changes)
    return Pipeline(opened, resolve_device(device, draws=True))
