"""The weights that a training starts from (``train.init_from``): found, known by their digest, and adapted to the new model.

A part of ``train``. Planning reads receipts, records and headers alone, besides the file itself for its digest where it is local.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from rarkit.cache.output import StageOutput
from rarkit.cache.receipt_content import Images, Receipt
from rarkit.cache.run_folders import MODEL_FILE, complete, is_run, read_receipt, store_of
from rarkit.cache.store import output_at
from rarkit.engine.checkpoint_seal import is_of_checkpoint
from rarkit.errors import GridError, RecipeError, StoreError, WeightsError
from rarkit.files.safetensors_metadata import metadata_of
from rarkit.files.stored_json import read_json
from rarkit.files.tensor_content import AGAIN, Digest, check_digest
from rarkit.files.weight_bounds import LARGEST_HEADER
from rarkit.files.weight_files import BUNDLE, FORMATS, IN_BUNDLE, IN_FOLDERS, is_index, local_copy
from rarkit.files.weights import checksum, read_tensors
from rarkit.images import ImageInfo
from rarkit.models.adaptation import GivenWeights
from rarkit.models.base import ModelFamily
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.registry.component import NotInFingerprint, Settings
from rarkit.registry.loader import parts

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel

RUNS = "runs"
"""The folder in which a run is found by its name."""
PLACES = (
    f"Name a run (its folder, or its name under {RUNS}/), a finished output of stage train (STORE/train/FINGERPRINT), or a file of "
    f"weights ({', '.join(f'*{end}' for end in FORMATS)})."
)
Table = dict[str, JsonValue]


@final
class InitialWeights(Settings):
    """What the stage reads of ``train.init_from``: its content, and how that lies to the new model."""

    sha256: str
    """Of the file."""
    grid: Grid
    """Height and width of the new model's grid."""
    grid_before: Grid | None
    """That of the given weights; None if only the file tells."""
    same_classes: bool | None
    """Whether they have the classes of the new model, in their order; None if they do not name them."""
    place: Annotated[str, NotInFingerprint()]
    """What the recipe names."""


@final
@dataclass(frozen=True)
class _Known:
    """What is known of weights before they are read."""

    sha256: str
    grid: Grid | None = None
    class_names: tuple[str, ...] | None = None


@final
class _Bundle(BaseModel):
    """What is read of a bundle's metadata here."""

    model_config = ConfigDict(strict=True, frozen=True)

    images: Images
    tokenizer: Table
    model: Table
    digest: Digest


def initial_weights(experiment: Experiment) -> InitialWeights | None:
    """What ``train.init_from`` of a recipe names; None if it names nothing.

    Raises:
        WeightsError: there are no such weights, or they are damaged.
        NotFetchedError: they are on another machine, and were not fetched.
    """
    train = experiment.recipe.train
    if train is None or train.init_from is None:
        return None
    with _named():
        known = _known(train.init_from)
    names = known.class_names
    return InitialWeights(
        sha256=known.sha256,
        grid=experiment.grid,
        grid_before=known.grid,
        same_classes=None if names is None else names == experiment.images.class_names,
        place=train.init_from,
    )


def start_from(weights: InitialWeights, model: ImageModel, family: ModelFamily) -> list[str]:
    """Loads weights into a new model, and returns what was changed for it: a sentence without a full stop each.

    Raises:
        WeightsError: they are missing, other ones than when the run was planned, or of another model.
    """
    with _named():
        given, new = _given(weights, checked=True), model.state_dict()
    if checksum(_file(weights.place)) != weights.sha256:
        raise WeightsError(f"{weights.place} (train.init_from) has changed since the run was planned. Start the run again.")
    with _named():
        tensors, changes = family.adapted(model.config, weights.grid, given, new)
    model.load_state_dict(tensors)
    return [f"starts from {weights.place}", *changes]


def changes_to(weights: InitialWeights, experiment: Experiment) -> list[str]:
    """What ``start_from`` will return. Looks at names and shapes alone.

    Raises:
        WeightsError, NotFetchedError: as ``start_from``; they were not fetched.
    """
    import torch

    family = experiment.recipe.model
    with _named():
        given = _given(weights)
    with torch.device("meta"):
        new = family.create(experiment.config, experiment.recipe.attention.build(), 0).state_dict()
    shapes = {name: tensor.to("meta") for name, tensor in given.tensors.items()}
    on_meta = GivenWeights(given.place, shapes, given.config, given.grid, given.same_classes)
    with _named():
        return [f"starts from {weights.place}", *family.adapted(experiment.config, weights.grid, on_meta, new).changes]


@contextmanager
def _named() -> Iterator[None]:
    """Names the setting in what is wrong with its weights."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"train.init_from: {error}") from error


def output_named(place: str) -> StageOutput | None:
    """The output of stage ``train`` that a place names, itself or by the run that made it; None if it names a file.

    Raises:
        WeightsError: the run trained no model, or the output is not whole.
    """
    run = run_named(place)
    if is_of_checkpoint(os.path.basename(place)):
        raise WeightsError(f"{place} is part of a training's checkpoint, from which that training goes on by itself. {PLACES}")
    if place.endswith(".toml"):
        raise WeightsError(f"{place} is a recipe. Run it, and name its run: {RUNS}/{Path(place).stem}.")
    if run is None and (place.endswith(FORMATS) or is_index(place)):
        return None
    try:
        return _output_at(place) if run is None else _output_of_run(run, read_receipt(run))
    except (RecipeError, StoreError) as error:
        raise WeightsError(str(error)) from error


def run_named(place: str) -> Path | None:
    """The folder of a run that is at a place, or under ``runs/`` with its name if nothing is there."""
    if is_run(place):
        return Path(place)
    named = Path(RUNS, os.path.basename(place.rstrip("/")))
    return None if "://" in place or os.path.exists(place) or not is_run(named) else named


def _output_of_run(folder: Path, receipt: Receipt) -> StageOutput:
    trained = next((stage.fingerprint for stage in receipt.stages if stage.name == "train"), None)
    if trained is None:
        raise WeightsError(f"the run {folder} trained no model. Name the file of weights that its recipe samples from.")
    store = store_of(receipt, folder)
    return complete(store.output("train", trained), folder, store)


def _output_at(place: str) -> StageOutput | None:
    output = output_at(place, "train")
    if not output.exists():
        return None
    record = output.require_complete()
    if record.stage != "train":
        raise WeightsError(f"{place} is an output of stage {record.stage!r}. Name one of train, or the folder of a run.")
    return output


def _known(place: str) -> _Known:
    output = output_named(place)
    if output is None:
        _check_file(place)
        file = local_copy(place)
        bundle = _bundle(place, file)
        if bundle is None:
            return _Known(checksum(file))
        return _Known(checksum(file), _grid(bundle.tokenizer, bundle.images), bundle.images.class_names)
    record, run = output.begun(), run_named(place)
    sha256 = record.sha256.get(MODEL_FILE) or checksum(_file(place))
    if run is None:
        return _Known(sha256, record.grid)
    receipt = read_receipt(run)
    images, tokenizer = receipt.images, (receipt.recipe or {}).get("tokenizer")
    if images is None or not isinstance(tokenizer, dict):
        return _Known(sha256, record.grid)
    return _Known(sha256, record.grid or _grid(tokenizer, images), images.class_names)


def _check_file(place: str) -> None:
    """Raises WeightsError for what is no file of weights."""
    inside = any(os.path.isfile(os.path.join(place, name)) for name in IN_FOLDERS)
    if not ("://" in place or os.path.isfile(place) or inside):
        raise WeightsError(f"there is no run, output or file of weights at {place!r}. {PLACES}")


def _file(place: str) -> Path:
    """The local file of weights at a place, fetched if it is remote."""
    output = output_named(place)
    return local_copy(place if output is None else output.checked_file(MODEL_FILE))


def _given(weights: InitialWeights, *, checked: bool = False) -> GivenWeights:
    """The weights; ``checked``: the numbers of a bundle are looked at, and refused if they are not those that were written."""
    file = _file(weights.place)
    tensors, metadata = read_tensors(file)
    config, bundle = metadata.get("config"), _bundle(weights.place, file)
    if bundle is not None:
        if checked:
            check_digest(tensors, bundle.digest, weights.place)
        tensors = {name.removeprefix(IN_BUNDLE): tensor for name, tensor in tensors.items() if name.startswith(IN_BUNDLE)}
        config = _config(bundle, weights.place)
    return GivenWeights(weights.place, tensors, config, weights.grid_before, weights.same_classes)


def _bundle(place: str, file: Path) -> _Bundle | None:
    """What a bundle says of its model; None if the file is no bundle. Imports no torch."""
    if file.suffix != ".safetensors":
        return None
    text = metadata_of(file).get(BUNDLE)
    if text is None:
        return None
    return read_json(_Bundle, text.encode(errors="surrogatepass"), place, AGAIN, most=LARGEST_HEADER, raising=WeightsError)


def _grid(tokenizer: Table, images: Images) -> Grid | None:
    """The grid of a tokenizer's table; None if it is none that is installed here."""
    name = tokenizer.get("name")
    installed = parts().tokenizers
    if not isinstance(name, str) or name not in installed:
        return None
    try:
        return installed[name].model_validate(tokenizer).grid(ImageInfo(**images.model_dump()))
    except (ValidationError, GridError):
        return None  # of another version of its plugin


def _config(bundle: _Bundle, place: str) -> str | None:
    """The configuration of a bundle's model; None if its parts are none that are installed here."""
    family, tokenizer = str(bundle.model.get("name")), str(bundle.tokenizer.get("name"))
    grid = _grid(bundle.tokenizer, bundle.images)
    if grid is None or family not in parts().models:
        return None
    try:
        codes = parts().tokenizers[tokenizer].model_validate(bundle.tokenizer).codebook_size()
        model = parts().models[family].model_validate(bundle.model)
        return model.config(grid=grid, codebook_size=codes, num_classes=len(bundle.images.class_names)).model_dump_json()
    except ValidationError as error:
        raise WeightsError(f"{place} is damaged: its [model] has no valid settings. Export it again.") from error
