"""Writes the folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rarkit.errors import CapabilityError, UserError
from rarkit.files.atomic import write_text
from rarkit.files.protocols import is_remote
from rarkit.inference.to_transformers.card import model_card
from rarkit.inference.to_transformers.one_file import one_file
from rarkit.inference.to_transformers.source import Exported, open_exported
from rarkit.models.exported import TransformersModel
from rarkit.registry.contract import origin

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.models.image_model import ImageModel

DECODER = "image_decoder"


def export_transformers(
    place: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    preset: str | None = None,
    tokenizer: str | os.PathLike[str] | None = None,
    store: str | os.PathLike[str] | None = None,
) -> str:
    """Writes a folder that Hugging Face transformers loads where rarkit is not installed, for the model's own scan order.

    Args:
        place: the folder of a run, or a checkpoint of a released size (``.bin``, ``.safetensors``).
        folder: the folder to write, which must be new or empty, or an earlier export.
        preset: the size of a checkpoint, ``"rar_b"`` to ``"rar_xxl"``.
        tokenizer: for a checkpoint, the weights of the MaskGIT-VQGAN, to decode images with; None leaves the decoder out.
        store: where a run's store is now; None for where it was.

    Returns:
        The folder.

    Raises:
        UserError: ``folder`` has other files in it, or ``place``, ``preset`` and ``tokenizer`` do not go together.
        CapabilityError: the model family has no code for transformers.
        WeightsError, IncompleteError, StoreError: the model, or what it needs, is missing or damaged.
    """
    target = _checked(folder)
    write_folder(open_exported(place, preset, tokenizer, store), target)
    return str(folder)


def write_folder(exported: Exported, target: Path) -> None:
    """Writes the folder of a model that is open."""
    import torch

    from rarkit.files.weights import write_tensors

    experiment = exported.experiment
    family = experiment.recipe.model
    seen = family.for_transformers(experiment.config, experiment.order_L.tolist())
    if seen is None:
        raise CapabilityError(
            f"model {family.name!r} has no code for transformers ({origin(type(family))}): export it without --to transformers"
        )
    tensors = _weights(exported.model, torch.from_numpy(experiment.order_L))
    write_tensors(tensors, target / "model.safetensors", {"format": "pt"})
    code = seen.module.rpartition(".")[2]
    write_text(target / f"{code}.py", one_file(seen.module))
    if exported.decoder is not None:
        write_tensors(exported.decoder.tensors, target / f"{DECODER}.safetensors", {"format": "pt"})
        write_text(target / f"{DECODER}.py", one_file(exported.decoder.module))
    dtype = str(next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())).removeprefix("torch.")
    _write_json(target / "generation_config.json", _generation(exported, seen))
    write_text(target / "README.md", model_card(exported, seen.prompt_length, seen.vocabulary_size, target.name))
    # Last: where it is, the folder is whole.
    _write_json(target / "config.json", _config(exported, seen, code, dtype))


def _checked(folder: str | os.PathLike[str]) -> Path:
    if is_remote(os.fspath(folder)):
        raise UserError(f"{os.fspath(folder)} is not on this machine: export to a folder here, and copy it")
    target = Path(folder)
    if target.is_dir() and any(target.iterdir()) and not (target / "config.json").exists():
        raise UserError(f"{target} has other files in it: name a new folder")
    return target


def _weights(model: ImageModel, order_L: Tensor) -> dict[str, Tensor]:
    """The model's tensors, with its positions merged if it has tables of them that are not merged yet."""
    from rarkit.models.image_model import ImageModel

    if type(model).merge_positions is not ImageModel.merge_positions:
        model = model.merge_positions(order_L)
    return dict(model.state_dict())


def _config(exported: Exported, seen: TransformersModel, code: str, dtype: str) -> dict[str, Any]:
    experiment = exported.experiment
    names = experiment.images.class_names
    return {
        "architectures": [f"{seen.name}ForCausalLM"],
        "auto_map": {"AutoConfig": f"{code}.{seen.name}Config", "AutoModelForCausalLM": f"{code}.{seen.name}ForCausalLM"},
        "torch_dtype": dtype,
        **seen.settings,
        # Of the logits, as generate takes it; prompts have other ids too.
        "vocab_size": experiment.config.codebook_size,
        "embedding_rows": seen.vocabulary_size,
        "grid": list(experiment.grid),
        "prompt_length": seen.prompt_length,
        "guidance": exported.settings.guidance.model_dump(mode="json"),
        "image_decoder": None if exported.decoder is None else dict(exported.decoder.settings),
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "id2label": {str(label): name for label, name in enumerate(names)},
        "label2id": {name: label for label, name in enumerate(names)},
    }


def _generation(exported: Exported, seen: TransformersModel) -> dict[str, Any]:
    return {
        **exported.settings.for_transformers(),
        "max_length": seen.prompt_length + exported.experiment.config.seq_len,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
