"""What a folder of diffusers says of its model, read without torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal, Self, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from rarkit.errors import WeightsError
from rarkit.tokenizers import companion

CONFIG, PIPELINE = "config.json", "model_index.json"
LARGEST = 2**20
"""Bytes of a config.json."""
CLASS = "VQModel"
HUB = "A folder of the Hugging Face hub is written hf://owner/name/folder."

Channels = Annotated[int, Field(gt=0, le=2**13)]
_TABLE = TypeAdapter(dict[str, JsonValue])


@final
class VQConfig(BaseModel):
    """What rarkit has to know of a ``VQModel``; the defaults are the library's. All else is the library's business."""

    model_config = ConfigDict(extra="ignore")

    in_channels: Literal[1, 3] = 3
    out_channels: Literal[1, 3] = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=14)] = (64,)
    layers_per_block: Annotated[int, Field(gt=0, le=64)] = 1
    latent_channels: Channels = 3
    num_vq_embeddings: Annotated[int, Field(ge=2, le=2**20)] = 256
    norm_num_groups: Channels = 32
    vq_embed_dim: Channels | None = None

    @model_validator(mode="after")
    def _sides_agree(self) -> Self:
        if self.in_channels != self.out_channels:
            raise ValueError(f"it reads {self.in_channels} channels and writes {self.out_channels}; a tokenizer keeps their number")
        lengths = [len(blocks) for blocks in (self.down_block_types, self.up_block_types, self.block_out_channels)]
        if len(set(lengths)) > 1:
            raise ValueError(
                "down_block_types, up_block_types and block_out_channels have {}, {} and {} entries; all need one per resolution, "
                "so that images come out in the size in which they went in".format(*lengths)
            )
        return self

    def factor(self) -> int:
        """Pixels of a token's side: each resolution but the last halves it."""
        return 1 << (len(self.block_out_channels) - 1)


def understood(table: dict[str, Any], place: str) -> VQConfig:
    """Raises WeightsError, with the cure, if it is not of a ``VQModel`` that can be a tokenizer."""
    if (found := table.get("_class_name", CLASS)) != CLASS:
        raise WeightsError(
            f"{place} is of a model of the class {found}: tokenizer 'diffusers_vq' takes a {CLASS}, whose images have codes. Name "
            "the folder of one."
        )
    try:
        return VQConfig.model_validate(table)
    except ValidationError as error:
        [first, *_] = error.errors()
        where = "".join(f"{step}: " for step in first["loc"])
        raise WeightsError(f"{place} cannot be a tokenizer: {where}{first['msg']}. Name another.") from error


def table_of(weights: str) -> dict[str, Any]:
    """The config.json that lies with weights, wherever they are; a remote one is asked for once in a process.

    Raises:
        WeightsError: there is none, or it is none.
        NotFetchedError: it is remote, and nothing may be fetched now.
    """
    return _remote_table(weights) if "://" in weights else _table(weights)


def _table(weights: str) -> dict[str, Any]:
    contents = companion(weights, CONFIG, LARGEST)
    if contents is None:
        raise WeightsError(f"{weights} has no {CONFIG}, which save_pretrained of diffusers writes. {_cure(weights)}")
    try:
        table = _TABLE.validate_json(contents)
    except ValidationError as error:
        raise WeightsError(f"{weights}: {CONFIG} is not a table in JSON. Fetch it again.") from error
    # The others with an underscore tell by which version it was written, and where.
    return {key: value for key, value in table.items() if not key.startswith("_") or key == "_class_name"}


# Asked for each batch of images.
_remote_table = lru_cache(maxsize=16)(_table)


def _cure(weights: str) -> str:
    """What to do where there is no config.json; of a pipeline, which folders have a VQModel."""
    index = companion(weights, PIPELINE, LARGEST)
    if index is None:
        return f"Check the place. {HUB}"
    try:
        parts = _TABLE.validate_json(index)
    except ValidationError:
        return f"It is a pipeline: name the folder of its {CLASS}."
    folders = [name for name, kind in parts.items() if isinstance(kind, list) and kind[-1:] == [CLASS]]
    return f"It is a pipeline: name the folder of its {CLASS}{', ' + ' or '.join(folders) if folders else ', if it has one'}."
