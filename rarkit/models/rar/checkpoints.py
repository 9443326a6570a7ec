"""Reads and writes released and exported checkpoints."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from rarkit.attention.base import AttentionFunction
from rarkit.errors import WeightsError, did_you_mean
from rarkit.files.weights import local_copy, read_tensors, write_tensors
from rarkit.models.checkpoints import check_fit, fill
from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.merged import MergedRAR
from rarkit.models.rar.rar import RAR
from rarkit.models.rar.sizes import PRESETS
from rarkit.models.rar.transformer import OrderedTransformer


def load_rar(
    path: str | Path,
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
        path: a released ``.bin`` or a ``.safetensors`` file; a path or fsspec URL (remote files are fetched once). A folder,
            such as that of a run, means its ``model.safetensors``.
        config: a preset's name or a configuration; optional for a ``.safetensors`` file that ``save_rar`` wrote.
        attention: the kernel; None means fused attention.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.

    Raises:
        WeightsError: the file is missing or damaged, would run code, or does not fit the model.
    """
    place = local_copy(path)
    tensors, metadata = read_tensors(place)
    config = _config(path, config, metadata, tensors)
    model = _empty(config, "scan_pos_embed" in tensors, attention)
    check_fit(path, model, tensors, partial(_advice, tensors))
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def save_rar(model: OrderedTransformer, path: str | Path) -> None:
    """Writes the weights atomically; ``load_rar`` reads them back bit for bit.

    Args:
        model: a model, merged or not.
        path: a path or fsspec URL. A ``.bin`` file can be loaded by the original code (a plain dict of tensors); a
            ``.safetensors`` file also contains the configuration.

    Raises:
        WeightsError: the suffix is another one, or the file cannot be written.
    """
    write_tensors(model.state_dict(), path, model.metadata())


def _config(path: str | Path, config: str | RARConfig | None, metadata: dict[str, str], tensors: dict[str, Tensor]) -> RARConfig:
    if isinstance(config, RARConfig):
        return config
    if config is not None:
        if config not in PRESETS:
            hint = did_you_mean(config, PRESETS)
            raise WeightsError(f"there is no preset {config!r}{hint} Presets are {', '.join(PRESETS)}.")
        return PRESETS[config]
    if "config" not in metadata:
        cure = f"Pass a preset ({', '.join(PRESETS)}) or a RARConfig. {_advice(tensors)}".rstrip()
        raise WeightsError(f"{path} does not contain the model's configuration. {cure}")
    try:
        return RARConfig.model_validate_json(metadata["config"])
    except ValidationError as error:
        raise WeightsError(f"the configuration in {path} is not that of a RAR: {error}. Pass a preset or a RARConfig.") from error


def _empty(config: RARConfig, merged: bool, attention: AttentionFunction | None = None) -> OrderedTransformer:
    with torch.device("meta"):
        return MergedRAR(config, attention) if merged else RAR(config, attention)


@cache
def _shapes(config: RARConfig, merged: bool) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in _empty(config, merged).state_dict().items()}


def _advice(tensors: dict[str, Tensor]) -> str:
    """A sentence with the preset that these tensors fit; empty if there is none."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for preset, config in PRESETS.items():
        if shapes == _shapes(config, "scan_pos_embed" in tensors):
            return f"It fits preset {preset!r}."
    return ""
