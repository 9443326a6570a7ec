"""Reads and writes released and exported checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from rarkit.attention.base import AttentionFunction
from rarkit.errors import WeightsError, did_you_mean
from rarkit.files.regular import open_regular
from rarkit.files.stored_json import JsonTable, parsed, read_json
from rarkit.files.tensor_mismatches import length, numbered
from rarkit.files.weights import read_tensors, write_tensors
from rarkit.models.checkpoints import CLASSES, CODES, TOKENS, check_fit, fill, weights_at
from rarkit.models.rar.config import SPARE_POSITIONS, RARConfig
from rarkit.models.rar.merged import MergedRAR
from rarkit.models.rar.rar import RAR
from rarkit.models.rar.sizes import PRESETS
from rarkit.models.rar.transformer import OrderedTransformer

EXPORTED, LARGEST = "config.json", 2**24
"""The file with the configuration in an export for transformers, and how many bytes it may have: it lists the classes."""


def load_rar(
    path: str | os.PathLike[str],
    config: str | RARConfig | None = None,
    *,
    attention: AttentionFunction | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> OrderedTransformer:
    """A model with the weights of a file, in eval mode: a ``RAR``, or a ``MergedRAR`` if the file's positions are merged.

    On the CPU without ``dtype``, the weights are the file's pages, mapped copy-on-write: loading allocates no memory. Otherwise the
    file is converted in portions, so that no second copy of it is held.

    Args:
        path: a released ``.bin``, a checkpoint of a training script or a ``.safetensors`` file; a path or fsspec URL (remote files
            are fetched once). A run's folder means the model that the run trained, whatever was exported there; any other folder,
            such as an export for transformers, means its ``model.safetensors``.
        config: a preset's name or a configuration; optional for a ``.safetensors`` file that ``save_rar`` wrote, and where the
            export's ``config.json`` is beside the file.
        attention: the kernel; None means fused attention.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.

    Raises:
        WeightsError: the file is missing or damaged, would run code, or does not fit the model; or the run trained none.
        StoreError: the run's model is no longer in the store, or damaged.
    """
    place = weights_at(path)
    tensors, metadata = read_tensors(place)
    config = _config(path, config, metadata, tensors)
    model = _empty(config, "scan_pos_embed" in tensors, attention)
    check_fit(path, model, tensors, partial(_advice, tensors), sizes_of)
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def save_rar(model: OrderedTransformer, path: str | os.PathLike[str]) -> None:
    """Writes the weights atomically; ``load_rar`` reads them back bit for bit.

    Args:
        model: a model, merged or not.
        path: a path or fsspec URL. A ``.bin`` file can be loaded by the original code (a plain dict of tensors); a
            ``.safetensors`` file also contains the configuration.

    Raises:
        WeightsError: the suffix is another one, or the file cannot be written.
    """
    write_tensors(model.state_dict(), path, model.metadata())


def _config(
    path: str | os.PathLike[str], config: str | RARConfig | None, metadata: dict[str, str], tensors: dict[str, Tensor]
) -> RARConfig:
    if isinstance(config, RARConfig):
        return config
    if config is not None:
        if config not in PRESETS:
            hint = did_you_mean(config, PRESETS)
            raise WeightsError(f"there is no preset {config!r}{hint} Presets are {', '.join(PRESETS)}.")
        return PRESETS[config]
    beside = Path(path) / EXPORTED if Path(path).is_dir() else Path(path).with_name(EXPORTED)
    if "config" not in metadata and beside.is_file():
        return _exported_config(beside)
    if "config" not in metadata:
        cure = f"Pass a preset ({', '.join(PRESETS)}) or a RARConfig. {_advice(tensors)}".rstrip()
        raise WeightsError(f"{path} does not contain the model's configuration. {cure}")
    try:
        return parsed(RARConfig, metadata["config"].encode())
    except ValueError as error:
        raise WeightsError(f"the configuration in {path} is not that of a RAR ({error}). Pass a preset or a RARConfig.") from error


def _exported_config(path: Path) -> RARConfig:
    """The configuration in an export for transformers, which has more keys."""
    with open_regular(path, LARGEST, raising=WeightsError) as file:
        table = read_json(JsonTable, file.read(), str(path), "Export the model again.", most=LARGEST, raising=WeightsError).root
    own = {name: table[name] for name in RARConfig.model_fields if name in table}
    try:
        return parsed(RARConfig, json.dumps(own).encode())
    except ValueError as error:
        raise WeightsError(f"{path} is not the configuration of a RAR ({error}). Pass a preset or a RARConfig.") from error


def _empty(config: RARConfig, merged: bool, attention: AttentionFunction | None = None) -> OrderedTransformer:
    with torch.device("meta"):
        return MergedRAR(config, attention) if merged else RAR(config, attention)


@cache
def _shapes(config: RARConfig, merged: bool) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _empty(config, merged).state_dict().items()}


def _advice(tensors: Mapping[str, Tensor]) -> str:
    """A sentence with the preset that these tensors fit, or of whose width and depth they are; empty if there is none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for preset, config in PRESETS.items():
        if shapes == _shapes(config, "scan_pos_embed" in tensors):
            return f"It fits preset {preset!r}."
    sizes = sizes_of(tensors)
    for preset, config in PRESETS.items():
        if all(sizes.get(word) == getattr(config, setting) for setting, word in _OWN_SIZES.items()):
            return f"Its own sizes are those of preset {preset!r}."
    return ""


_OWN_SIZES = {
    "hidden_size": "channels (hidden_size)",
    "depth": "blocks (depth)",
    "num_heads": "heads (num_heads)",
    "mlp_hidden_size": "MLP channels (mlp_hidden_size)",
}
"""By setting, the words of sizes that ``[model]`` determines."""


def sizes_of(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""
    codes, rows, width = (
        length(tensors, "lm_head.weight", 0),
        length(tensors, "embeddings.weight", 0),
        length(tensors, "embeddings.weight", 1),
    )
    places, head = length(tensors, "pos_embed", 1), length(tensors, "blocks.0.attn.q_norm.weight", 0)
    sizes = {
        # The rows are the codes, a mask token, the classes, "no class".
        CLASSES: rows - codes - 2 if rows and codes else 0,
        CODES: codes,
        TOKENS: length(tensors, "scan_order", 0) if not places else places - SPARE_POSITIONS,
        _OWN_SIZES["hidden_size"]: width,
        _OWN_SIZES["depth"]: numbered(tensors, "blocks."),
        _OWN_SIZES["num_heads"]: width // head if head else 0,
        _OWN_SIZES["mlp_hidden_size"]: length(tensors, "blocks.0.mlp.fc1.weight", 0),
    }
    return {word: number for word, number in sizes.items() if number > 0}
