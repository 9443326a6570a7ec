"""What keeps a recipe from running here: data and weights that are missing, parts that cannot work on this machine."""

from __future__ import annotations

from typing import Any

from rarkit.errors import DatasetError, RarkitError, WeightsError
from rarkit.recipe.schema import PART_TABLES, Recipe
from rarkit.registry.component import Component, Settings
from rarkit.stages.base import model_grid
from rarkit.stages.sample import sample_labels
from rarkit.stages.train import imported

PUBLISHED = {
    **{f"rar_{size}.bin": f"hf://yucornetto/RAR/rar_{size}.bin" for size in ("b", "l", "xl", "xxl")},
    "maskgit-vqgan-imagenet-f16-256.bin": "hf://fun-research/TiTok/maskgit-vqgan-imagenet-f16-256.bin",
    "pt_inception-2015-12-05-6726825d.pth": "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth",
    "VIRTUAL_imagenet256_labeled.npz": "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256/"
    "VIRTUAL_imagenet256_labeled.npz",
}
"""Where the released files are to be had, by their names."""


def no_shape(recipe: Recipe) -> DatasetError | None:
    """Why size and classes of the images cannot be known; None where they are, and go together with the other parts."""
    try:
        model_grid(recipe)
        if recipe.sample is not None:
            sample_labels(recipe)
    except DatasetError as error:
        return error
    return None


def part_obstacles(recipe: Recipe, device: str) -> dict[str, str]:
    """Why parts of a recipe cannot work on a device, by the table that names them."""
    found = {}
    train, attention = recipe.train, recipe.attention
    if train is not None and recipe.model.attention_dropout > 0 and not attention.has_dropout:
        found["attention"] = (
            f"[attention] {attention.name!r} cannot drop attention weights, and model.attention_dropout is "
            f"{recipe.model.attention_dropout}: set it to 0, or choose another [attention]"
        )
    if recipe.sample is not None and recipe.sample.precision == "int8" and device != "cpu":
        found["sample"] = "sample.precision 'int8' is for CPUs: set it to 'bfloat16', or run with --device cpu"
    dtype = train.precision if train is not None else "float32"
    for table in PART_TABLES:
        part: Any = recipe
        for key in table.split("."):
            part = getattr(part, key, None)
        if isinstance(part, Component) and table not in found:
            reason = part.capability(device, dtype)
            if reason is not None:
                found[table] = f"[{table}] {part.name!r} cannot work here: {reason}"
    return found


def missing_content(recipe: Recipe) -> dict[str, RarkitError]:
    """The data and weights that a recipe names and that are not there, by the table that names them."""
    found: dict[str, RarkitError] = {}
    places: dict[str, Settings] = {"dataset": recipe.dataset, "tokenizer": recipe.tokenizer, "model": recipe.model}
    if recipe.evaluate is not None:
        places["evaluate.features"] = recipe.evaluate.features
    for table, settings in places.items():
        try:
            if isinstance(settings, Component) and table == "dataset":
                recipe.dataset.info()
            settings.content()
        except (DatasetError, WeightsError) as error:
            found[table] = error
    if recipe.train is not None and recipe.train.tokens is not None:
        try:
            imported(recipe)
        except DatasetError as error:
            found["train.tokens"] = error
    return found


def cure(error: RarkitError) -> str:
    """The message of an error, with the places where the released files in it are to be had."""
    said = str(error)
    for name, place in PUBLISHED.items():
        if name in str(error):
            hub = ', which may also be named instead (pip install "rarkit[hub]")' if place.startswith("hf://") else ""
            said += f" Published: {place}{hub}."
    return said
