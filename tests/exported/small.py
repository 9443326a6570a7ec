"""Small exports of each kind, and what rarkit computes with them, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rarkit.inference.to_transformers.export import write_folder
from rarkit.inference.to_transformers.source import Exported
from rarkit.models import LlamaAR, LlamaARConfig, RARConfig
from rarkit.models.image_model import ImageModel
from rarkit.recipe.experiment import resolve
from rarkit.recipe.load import parse_recipe
from rarkit.registry.loader import parts
from tests.exported.expectations import write_expectations
from tests.models.rar.small import lively

GREY = {"name": "generated", "height": 8, "width": 12, "channels": 1, "train_images": 40, "test_images": 4}
COLOUR = {**GREY, "height": 8, "width": 8, "channels": 3}
PATCHES = {"name": "patch_kmeans", "patch": 2, "codes": 20, "iterations": 2}
VQGAN = {"name": "maskgit_vqgan", "weights": None, "hidden_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "codes": 24}
SIZES = {"hidden_size": 32, "depth": 2, "num_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    "rar": {"dataset": GREY, "tokenizer": PATCHES, "scan_order": {"name": "spiral"}, "model": SIZES},
    "rar_prefix": {
        "dataset": {**GREY, "width": 4},
        "tokenizer": {"name": "pixel", "levels": 17},
        "model": {**SIZES, "conditioning": "prefix", "target_aware": False},
    },
    "rar_vqgan": {"dataset": COLOUR, "tokenizer": VQGAN, "model": SIZES},
    "llama_ar": {
        "dataset": GREY,
        "tokenizer": PATCHES,
        "scan_order": {"name": "alternate"},
        "model": {"name": "llama_ar", **SIZES, "rope_theta": 100.0},
    },
}
"""Tables of recipes, by the name of the export."""


def write_small(name: str, exports: Path) -> Exported:
    """Writes an export of a model with random weights and its expectations to a folder of exports."""
    sample = {"guidance": {"name": "linear", "scale": 3.0}}
    tables = {"title": name, "train": {"steps": 1, "batch_size": 2}, "sample": sample, **SMALL[name]}
    recipe = parse_recipe(tables, parts(), name).named(name)
    experiment, tokenizer = resolve(recipe), recipe.tokenizer
    state = tokenizer.fit(recipe.dataset.open("train"), 0) if tokenizer.learns else {}
    assert recipe.sample is not None
    exported = Exported(experiment, _model(experiment.config), tokenizer.image_decoder(state), recipe.sample, ())
    write_folder(exported, exports / name)
    write_expectations(exported, tokenizer.build(state, "cpu"), exports / f"{name}.safetensors")
    return exported


def _model(config: Any) -> ImageModel:
    if isinstance(config, RARConfig):
        return lively(config)
    assert isinstance(config, LlamaARConfig)
    model = LlamaAR(config, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8 if weight.ndim > 1 else 1.5)
    return model.eval()
