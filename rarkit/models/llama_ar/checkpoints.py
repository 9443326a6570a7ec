"""Exported checkpoints, read."""

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
"""Sizes that a model in eval mode does not depend on."""


def load_llama_ar(
    path: str | Path,
    config: LlamaARConfig,
    *,
    attention: AttentionFunction | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> LlamaAR:
    """A model with weights from a file, in eval mode.

    Args:
        path: a ``.safetensors`` or ``.bin``; a path or any fsspec URL. A folder stands for its ``model.safetensors``.
        config: the sizes.
        attention: the kernel; fused attention where None.
        device: where the weights go.
        dtype: the floating dtype of the weights; as stored where None.

    Raises:
        WeightsError: there is no such file, it is damaged, it wants to run code, or it does not fit the model. Where the file says
            what sizes it is of, this covers those that shapes do not show: the grid's sides, the heads, the rotary base.
    """
    place = local_copy(path)
    tensors, metadata = read_tensors(place)
    with torch.device("meta"):
        model = LlamaAR(config, attention, seed=None)
    check_fit(path, model, tensors, lambda: "Set [model] to the sizes that it was trained with.")
    if "config" in metadata:
        _check_config(path, config, metadata["config"])
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def _check_config(path: str | Path, config: LlamaARConfig, written: str) -> None:
    try:
        stored = LlamaARConfig.model_validate_json(written)
    except ValidationError as error:
        raise WeightsError(f"the sizes in {path} are not those of a llama_ar: take a file that rarkit exported") from error
    names = sorted(LlamaARConfig.model_fields.keys() - IN_TRAINING)
    different = [name for name in names if getattr(stored, name) != getattr(config, name)]
    if different:
        said = ", ".join(f"{name} = {getattr(stored, name)} (here {getattr(config, name)})" for name in different)
        raise WeightsError(f"{path} was trained with {said}: set [model], and the tokenizer's grid, to what it was trained with")
