"""Loads weights from a file into a model without holding a second copy in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rarkit.cache.run_folders import is_run, model_of_run
from rarkit.errors import WeightsError, sentences
from rarkit.files.stored_json import parsed
from rarkit.files.tensor_mismatches import Sizes, check_tensors, no_sizes
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import portions, read_tensors
from rarkit.models.config import ModelConfig

IN_TRAINING = {"dropout", "attention_dropout", "class_dropout"}
"""Settings that do not affect a model in eval mode."""
WHAT_FITS = "Set [model] to the sizes it was trained with, and use its tokenizer, or start from other weights."
M = TypeVar("M", bound=nn.Module)
CLASSES, CODES, TOKENS = "classes", "codes", "tokens per image"
"""Words of sizes that data and tokenizer determine; see ``rarkit.files.tensor_mismatches.Sizes``."""


def weights_at(path: str | os.PathLike[str]) -> Path:
    """The local file of weights at a path or fsspec URL; of a run's folder, the model that the run trained, from its store.

    Raises:
        WeightsError: there is no such file, or the run trained no model.
        StoreError: the run's model is no longer in the store, or damaged.
    """
    return local_copy(model_of_run(path) if is_run(path) else os.fspath(path))


def check_fit(
    path: str | os.PathLike[str],
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    advice: Callable[[], str],
    sizes: Sizes = no_sizes,
) -> None:
    """Raises WeightsError if a file's tensors do not fit the model: with the sizes that differ, or else with every mismatch.

    Args:
        path: the file, for the message.
        model: the model, which may be on the meta device.
        tensors: those of the file.
        advice: a sentence for the end of the message, or "".
        sizes: reads the sizes of a model of this family off tensors.
    """

    def cure(different: Mapping[str, int]) -> str:
        advices = [advice()]
        if CLASSES in different:
            advices.append("Use a dataset with the classes that it was trained on.")
        if different.keys() & {CODES, TOKENS}:
            advices.append("Use the tokenizer and image size that it was trained with.")
        return sentences(*filter(None, advices))

    check_tensors(os.fspath(path), "model", model.state_dict(), tensors, cure, sizes)


def fill(
    model: nn.Module, place: Path, tensors: dict[str, Tensor], *, device: str | torch.device, dtype: torch.dtype | None
) -> None:
    """Loads a file's weights into a model on the meta device. The file must fit (``check_fit``).

    On the CPU without ``dtype``, the weights are the file's pages, mapped copy-on-write, which takes no memory. Otherwise the file
    is converted in portions, so that no second copy of it is held.

    Args:
        model: on the meta device.
        place: the file.
        tensors: what ``read_tensors`` returned for it; emptied.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.
    """
    if torch.device(device).type == "cpu" and all(tensor.dtype == _target_dtype(tensor, dtype) for tensor in tensors.values()):
        model.load_state_dict(tensors, assign=True)
        return
    tensors.clear()
    moved = {}
    for portion in portions(place):
        for name in list(portion):
            tensor = portion.pop(name)
            # Copy even if nothing changes: a single uncopied tensor keeps the whole file in memory.
            moved[name] = tensor.to(device=device, dtype=_target_dtype(tensor, dtype), copy=True)
    model.load_state_dict(moved, assign=True)


def load_into(
    create: Callable[[], M],
    config: ModelConfig,
    path: str | os.PathLike[str],
    *,
    device: str | torch.device,
    dtype: torch.dtype | None,
    sizes: Sizes = no_sizes,
) -> M:
    """A model with the weights of a file whose tensors have the model's own names, in eval mode.

    Args:
        create: makes the model; called where the default device is "meta".
        config: the model's configuration, compared with that of the file, if it has one.
        path: a path or fsspec URL, or the folder of a run.
        device: the device of the weights.
        dtype: the floating dtype of the weights; None keeps the stored one.
        sizes: reads the sizes of a model of this family off tensors.

    Raises:
        WeightsError: the file is missing or damaged, would run code, or does not fit. If it has a configuration, this includes
            settings that do not affect shapes, such as the number of heads.
    """
    place = weights_at(path)
    tensors, metadata = read_tensors(place)
    with torch.device("meta"):
        model = create()
    check_fit(path, model, tensors, lambda: "Set [model] to the sizes it was trained with.", sizes)
    if "config" in metadata:
        check_config(path, config, metadata["config"])
    fill(model, place, tensors, device=device, dtype=dtype)
    return model.eval()


def check_config(path: str | os.PathLike[str], config: ModelConfig, written: str, but: Set[str] = frozenset()) -> None:
    """Raises WeightsError if a file's configuration, as JSON, is another in a setting that counts outside training, ``but``."""
    try:
        stored = parsed(type(config), written.encode())
    except ValueError as error:
        raise WeightsError(
            f"the configuration in {path} is not that of this model ({error}). Use a file that rarkit exported."
        ) from error
    names = sorted(type(config).model_fields.keys() - IN_TRAINING - but)
    different = [name for name in names if getattr(stored, name) != getattr(config, name)]
    if different:
        differences = ", ".join(f"{name} = {getattr(stored, name)} (here {getattr(config, name)})" for name in different)
        raise WeightsError(f"{path} was trained with {differences}: set [model] and the tokenizer's grid to match")


def _target_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
