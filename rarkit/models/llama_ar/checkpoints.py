"""Reads exported checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from torch import Tensor

from rarkit.attention.base import AttentionFunction
from rarkit.files.tensor_mismatches import length, numbered
from rarkit.models.checkpoints import CLASSES, CODES, load_into
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.models.llama_ar.llama_ar import LlamaAR


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
    return load_into(lambda: LlamaAR(config, attention, seed=None), config, path, device=device, dtype=dtype, sizes=sizes_of)


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them. Grid and heads do not show."""
    codes, rows = length(tensors, "lm_head.weight", 0), length(tensors, "model.embed_tokens.weight", 0)
    sizes = {
        # The rows are the codes, the classes, "no class".
        CLASSES: rows - codes - 1 if rows and codes else 0,
        CODES: codes,
        "channels (hidden_size)": length(tensors, "model.embed_tokens.weight", 1),
        "blocks (depth)": numbered(tensors, "model.layers."),
        "MLP channels (mlp_hidden_size)": length(tensors, "model.layers.0.mlp.gate_proj.weight", 0),
    }
    return {word: number for word, number in sizes.items() if number > 0}
