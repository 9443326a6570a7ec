"""Reads exported checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from rarkit.attention.base import AttentionFunction
from rarkit.errors import WeightsError
from rarkit.files.stored_json import parsed
from rarkit.files.tensor_mismatches import numbered
from rarkit.files.weights import read_tensors
from rarkit.models.checkpoints import CLASSES, CODES, check_fit, fill, weights_at
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.llama_ar import LlamaAR

IN_TRAINING = {"dropout", "attention_dropout", "class_dropout"}
"""Settings that do not affect a model in eval mode."""


def load_llama_ar(
    path: str | os.PathLike[str],
    config: LlamaARConfig,
    *,
    attention: AttentionFunction | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> LlamaAR:
    """A model with the weights of a file, in eval mode.

    Args:
        path: a ``.safetensors`` or PyTorch file; a path or fsspec URL. A run's folder means the model that the run
            trained; any other folder means its ``model.safetensors``.
        config: the model's configuration.
        attention: the kernel; None means fused attention.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.

    Raises:
        WeightsError: the file is missing or damaged, would run code, or does not fit the model. If the file contains its
            configuration, this includes settings that do not affect shapes: the grid, the number of heads, the rotary base.
    """
    place = weights_at(path)
    tensors, metadata = read_tensors(place)
    with torch.device("meta"):
        model = LlamaAR(config, attention, seed=None)
    check_fit(path, model, tensors, lambda: "Set [model] to the sizes it was trained with.", _sizes)
    if "config" in metadata:
        _check_config(path, config, metadata["config"])
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def _check_config(path: str | os.PathLike[str], config: LlamaARConfig, written: str) -> None:
    try:
        stored = parsed(LlamaARConfig, written.encode())
    except ValueError as error:
        raise WeightsError(
            f"the configuration in {path} is not that of a llama_ar ({error}). Use a file that rarkit exported."
        ) from error
    names = sorted(LlamaARConfig.model_fields.keys() - IN_TRAINING)
    different = [name for name in names if getattr(stored, name) != getattr(config, name)]
    if different:
        differences = ", ".join(f"{name} = {getattr(stored, name)} (here {getattr(config, name)})" for name in different)
        raise WeightsError(f"{path} was trained with {differences}: set [model] and the tokenizer's grid to match")


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them. Grid and heads do not show."""

    def size(name: str, axis: int) -> int | None:
        return tensors[name].shape[axis] if name in tensors and tensors[name].ndim > axis else None

    codes, rows = size("lm_head.weight", 0), size("model.embed_tokens.weight", 0)
    sizes = {
        # The rows are the codes, the classes, "no class".
        CLASSES: rows - codes - 1 if rows is not None and codes is not None else None,
        CODES: codes,
        "channels (hidden_size)": size("model.embed_tokens.weight", 1),
        "blocks (depth)": numbered(tensors, "model.layers.") or None,
        "MLP channels (mlp_hidden_size)": size("model.layers.0.mlp.gate_proj.weight", 0),
    }
    return {word: number for word, number in sizes.items() if number is not None and number > 0}
