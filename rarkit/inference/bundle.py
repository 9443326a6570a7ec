"""Bundles: a trained model with its tokenizer, scan order and class names in one safetensors file.

Tensors of the model begin with ``model.``, the arrays of the tokenizer with ``tokenizer.``; the rest is JSON in the metadata. What
is in a bundle may be a stranger's: nothing in it is run, names no file, and takes memory before it has been compared with the rest.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, JsonValue

from rarkit.cache.receipt_content import Images, UsedSource
from rarkit.errors import CapabilityError, WeightsError
from rarkit.files.safetensors_metadata import metadata_of
from rarkit.files.stored_json import Format, Text, read_json
from rarkit.files.system_errors import system_error
from rarkit.files.tensor_content import AGAIN, Digest, check_digest, digest_of
from rarkit.files.weight_bounds import LARGEST_HEADER
from rarkit.files.weight_files import BUNDLE, IN_BUNDLE, local_copy
from rarkit.files.weights import read_tensors, write_tensors
from rarkit.images import ImageInfo
from rarkit.recipe.experiment import Experiment, resolve
from rarkit.recipe.folder_names import folder_name_of
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.sources import check_names_known, check_same, sources
from rarkit.registry.addresses import addresses
from rarkit.registry.contract import origin
from rarkit.registry.inputs import place as place_of
from rarkit.registry.loader import parts
from rarkit.sampling.settings import SampleSettings
from rarkit.tokenizers.exported import arrays_of

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.models.image_model import ImageModel

FORMAT, SUFFIX = 1, ".safetensors"
KEY, MODEL, TOKENIZER = BUNDLE, IN_BUNDLE, "tokenizer."
"""Prefixes of the names of tensors."""
MERGED = 2**24
"""Numbers that a model may lack without being damaged: tables of positions that were merged."""
Table = dict[str, JsonValue]


@final
class Content(BaseModel):
    """The JSON of a bundle. The tables are those of a recipe, without paths."""

    model_config = ConfigDict(strict=True, frozen=True)

    format: Format
    name: Text
    title: Text
    seed: int
    images: Images
    tokenizer: Table
    scan_order: Table
    attention: Table
    model: Table
    sample: Table
    digest: Digest
    """Of the tensors."""
    sources: dict[str, UsedSource] = {}
    """By table; of parts that were registered in Python."""


@final
@dataclass(frozen=True)
class Bundle:
    """A bundle that was opened; its tensors are pages of the file, read when they are used."""

    experiment: Experiment
    settings: SampleSettings
    tensors: Mapping[str, Tensor]
    """Of the model."""
    state: Mapping[str, NDArray[np.generic]]
    """What the tokenizer is built from."""

    def model(self, device: str, dtype: str) -> ImageModel:
        """The model in eval mode."""
        import torch

        recipe = self.experiment.recipe
        model = recipe.model.restore(self.experiment.config, recipe.attention.build(), self.tensors)
        return model.to(device).to(getattr(torch, dtype)).eval()


def write_bundle(
    experiment: Experiment,
    settings: SampleSettings,
    model: ImageModel,
    state: Mapping[str, NDArray[np.generic]],
    path: str | os.PathLike[str],
) -> str:
    """Writes a bundle, whole or not at all.

    Args:
        experiment: that of the model.
        settings: how to sample unless told otherwise.
        model: the model.
        state: what the tokenizer learned.
        path: path or fsspec URL of the file, ``.safetensors``.

    Returns:
        The path.

    Raises:
        WeightsError: the path has another suffix, or cannot be written.
        CapabilityError: a part reads files that cannot be in a bundle.
    """
    import torch

    place, recipe, images = place_of("path", path), experiment.recipe, experiment.images
    if not place.lower().endswith(SUFFIX):
        raise WeightsError(f"{place} is to be a bundle, whose name has to end in {SUFFIX}. Give it that suffix.")
    tokenizer, state = recipe.tokenizer.without_files(state)
    family = recipe.model.model_copy(update={"weights": None})
    tables = {"tokenizer": tokenizer, "scan_order": recipe.scan_order, "attention": recipe.attention, "model": family}
    for table, part in tables.items():
        for address in addresses(part):
            raise CapabilityError(
                f"[{table}] {part.name!r} ({origin(type(part))}) reads {address.place}, which cannot be in a bundle. Choose "
                f"another [{table}], or leave out {address.setting}."
            )
    tensors = {f"{MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"{TOKENIZER}{name}": torch.from_numpy(np.atleast_1d(array)) for name, array in state.items()}
    used = sources(recipe)
    content = Content(
        format=FORMAT,
        name=recipe.recipe_name,
        title=recipe.title,
        seed=recipe.seed,
        images=Images(height=images.height, width=images.width, channels=_channels(images), class_names=images.class_names),
        sample=settings.model_dump(mode="json"),
        digest=digest_of(tensors),
        sources={table: UsedSource(**source._replace(file=None)._asdict()) for table, source in used.items() if table in tables},
        **{table: part.model_dump(mode="json") for table, part in tables.items()},
    )
    write_tensors(tensors, place, {KEY: content.model_dump_json()})
    return place


def read_bundle(place: str) -> Bundle | None:
    """A bundle at a path or fsspec URL; None if the file is no bundle.

    Raises:
        WeightsError: the file is missing, damaged, or of a newer rarkit; its tensors are not those that were written, or the model
            does not fit what the file says of it.
        RecipeError: a part that it names is not installed, or a setting has an invalid value.
        PluginError: a part that it had from Python is not registered here, or has another source.
        GridError: its parts do not fit its images.
    """
    tensors, metadata = read_tensors(local_copy(place))
    if KEY not in metadata:
        return None
    data = metadata[KEY].encode(errors="surrogatepass")
    content = read_json(Content, data, place, AGAIN, most=LARGEST_HEADER, newest=FORMAT, raising=WeightsError)
    tables: dict[str, Any] = {
        **content.model_dump(include={"title", "seed", "tokenizer", "scan_order", "attention", "model", "sample"}),
        # A recipe has one; the images are those of the bundle.
        "dataset": {"name": "generated"},
    }
    tables["model"] = {**tables["model"], "weights": place}
    check_names_known(content.sources, f"the bundle {place}")
    recipe = parse_recipe(tables, parts(), f"{place} (bundle)").named(folder_name_of(content.name))
    check_same(recipe, content.sources, f"the bundle {place}")
    for address in addresses(recipe):
        if address.setting != "model.weights":
            raise WeightsError(f"{place} is a bundle and wants to read {address.place} ({address.setting}): refused. {AGAIN}")
    experiment = resolve(recipe, ImageInfo(**content.images.model_dump()), ("train",))
    bundle = Bundle(
        experiment,
        recipe.sample or SampleSettings(),
        {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)},
        arrays_of({name.removeprefix(TOKENIZER): tensor for name, tensor in tensors.items() if name.startswith(TOKENIZER)}, place),
    )
    check_digest(tensors, content.digest, place)
    _check_model(bundle, place)
    return bundle


def _check_model(bundle: Bundle, place: str) -> None:
    """Refuses a model whose tensors are not those of its sizes, before it takes any memory."""
    import torch

    recipe, config = bundle.experiment.recipe, bundle.experiment.config
    claimed, stored = config.parameter_count(), sum(tensor.numel() for tensor in bundle.tensors.values())
    if claimed > 2 * stored + MERGED:
        raise WeightsError(f"{place} is damaged: its model claims {claimed:,} numbers, and has {stored:,}. {AGAIN}")
    tensors = {name: tensor.to("meta") for name, tensor in bundle.tensors.items()}
    try:
        with torch.device("meta"):
            recipe.model.restore(config, recipe.attention.build(), tensors)
    except RuntimeError as error:
        if (told := system_error(error)) is not None:
            raise told from error
        raise WeightsError(f"{place} is damaged: its model has not the sizes that it says. {AGAIN}") from error


def _channels(images: ImageInfo) -> Any:
    """Other numbers are refused when the content is made."""
    return images.channels


def is_bundle_name(place: str | Path) -> bool:
    """Whether a file may be a bundle, by its name."""
    return str(place).lower().endswith(SUFFIX)


def is_bundle(place: str) -> bool:
    """Whether a path or fsspec URL is a bundle.

    Raises:
        WeightsError: there is no such file, or it is damaged.
    """
    return is_bundle_name(place) and KEY in metadata_of(local_copy(place))
