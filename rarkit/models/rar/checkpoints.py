"""Released and exported checkpoints, read and written."""

from __future__ import annotations

from functools import partial
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
    """A model with weights from a file, in eval mode: a ``RAR``, or a ``MergedRAR`` where its positions had been merged.

    On the CPU and without ``dtype`` the weights are the file's pages, mapped copy-on-write: loading takes no memory of its own.
    Otherwise the file is converted in portions, so that no second copy of it comes into being on the way.

    Args:
        path: a ``.bin`` as released, or a ``.safetensors``; a path or any fsspec URL (a remote file is fetched once). A folder,
            such as that of a run, stands for its ``model.safetensors``.
        config: a preset's name or the sizes; may be left out for a ``.safetensors`` that ``save_rar`` wrote.
        attention: the kernel; fused attention where None.
        device: where the weights go.
        dtype: the floating dtype of the weights; as stored where None.

    Raises:
        WeightsError: there is no such file, it is damaged, it wants to run code, or it does not fit the model.
    """
    place = local_copy(path)
    tensors, metadata = read_tensors(place)
    config = _config(path, config, metadata, tensors)
    model = _empty(config, tensors, attention)
    check_fit(path, model, tensors, partial(_advice, tensors))
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def save_rar(model: OrderedTransformer, path: str | Path) -> None:
    """Writes the weights, whole or not at all; ``load_rar`` reads them back bit for bit.

    Args:
        model: merged or not.
        path: a path or any fsspec URL. ``.bin`` gives what the original code loads (a plain dict of tensors), ``.safetensors``
            carries the sizes too.

    Raises:
        WeightsError: another suffix, or a place that cannot be written.
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
        cure = f"give a preset ({', '.join(PRESETS)}) or a RARConfig. {_advice(tensors)}".rstrip()
        raise WeightsError(f"{path} says nothing of the model's sizes: {cure}")
    try:
        return RARConfig.model_validate_json(metadata["config"])
    except ValidationError as error:
        raise WeightsError(f"the sizes in {path} are not those of a RAR: {error}. Give a preset or a RARConfig.") from error


def _empty(config: RARConfig, tensors: dict[str, Tensor], attention: AttentionFunction | None = None) -> OrderedTransformer:
    with torch.device("meta"):
        return MergedRAR(config, attention) if "scan_pos_embed" in tensors else RAR(config, attention)


def _advice(tensors: dict[str, Tensor]) -> str:
    """Which preset these tensors would fit, as a sentence."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    for preset, config in PRESETS.items():
        if shapes == {name: tensor.shape for name, tensor in _empty(config, tensors).state_dict().items()}:
            return f"It fits preset {preset!r}."
    return ""
