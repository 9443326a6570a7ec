"""Reads exported checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError

from rarkit.attention.base import AttentionFunction
from rarkit.errors import WeightsError
from rarkit.files.weights import local_copy, read_tensors
from rarkit.models.checkpoints import check_fit, fill
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.llama_ar import LlamaAR

IN_TRAINING = {"dropout", "attention_dropout", "class_dropout"}
"""Settings that do not affect a model in eval mode."""


def load_llama_ar(
    path: str | Path,
    config: LlamaARConfig,
    *,
    attention: AttentionFunction | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> LlamaAR:
    """A model with the weights of a file, in eval mode.

    Args:
        path: a ``.safetensors`` or ``.bin`` file; a path or fsspec URL. A folder means its ``model.safetensors``.
        config: the model's configuration.
        attention: the kernel; None means fused attention.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.

    Raises:
        WeightsError: the file is missing or damaged, would run code, or does not fit the model. If the file contains its
            configuration, this includes settings that do not affect shapes: the grid, the number of heads, the rotary base.
    """
    place = local_copy(path)
    tensors, metadata = read_tensors(place)
    with torch.device("meta"):
        model = LlamaAR(config, attention, seed=None)
    check_fit(path, model, tensors, lambda: "Set [model] to the sizes it was trained with.")
    if "config" in metadata:
        _check_config(path, config, metadata["config"])
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def _check_config(path: str | Path, config: LlamaARConfig, written: str) -> None:
    try:
        stored = LlamaARConfig.model_validate_json(written)
    except ValidationError as error:
        raise WeightsError(f"the configuration in {path} is not that of a llama_ar: use a file that rarkit exported") from error
    names = sorted(LlamaARConfig.model_fields.keys() - IN_TRAINING)
    different = [name for name in names if getattr(stored, name) != getattr(config, name)]
    if different:
        differences = ", ".join(f"{name} = {getattr(stored, name)} (here {getattr(config, name)})" for name in different)
        raise WeightsError(f"{path} was trained with {differences}: set [model] and the tokenizer's grid to match")
