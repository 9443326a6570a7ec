"""Tokenizers of the library diffusers for rarkit."""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, final

from pydantic import Field, JsonValue, model_validator

from rarkit import ImageInfo, Location, NotInFingerprint, Tokenizer, TokenizerModel, hookimpl
from rarkit.tokenizers import LearnedState, checksum, load_network, network_state, whole_grid
from rarkit_diffusers.config import CONFIG, VQConfig, table_of, understood

if TYPE_CHECKING:
    from diffusers import VQModel
    from torch import Tensor

requires_rarkit = ">=0.1,<0.2"


@final
class DiffusersVQ(Tokenizer):
    """Any ``VQModel`` of the library diffusers, which loads and computes it: a convolutional network with a codebook.

    Its ``config.json`` says how many pixels are a token, how many codes there are, and whether images are in colour.
    """

    name: Literal["diffusers_vq"] = "diffusers_vq"
    weights: Annotated[Location | None, NotInFingerprint()]
    """A folder as ``save_pretrained`` writes it, or the address of one, such as ``hf://owner/name/vqvae``; null means random
    weights, for rehearsals."""
    config: dict[str, JsonValue] | None = None
    """With random weights, what the ``config.json`` would say; otherwise it is read from the folder."""
    batch_size: Annotated[int, Field(gt=0, le=2**20), NotInFingerprint()] = 16
    """Images processed at a time; bounds memory."""

    @model_validator(mode="after")
    def _one_config(self) -> Self:
        if self.weights is None and self.config is None:
            raise ValueError("random weights (weights = null) need config: what the config.json of the model would say")
        if self.weights is not None and self.config is not None:
            raise ValueError(f"the folder that weights names has its own {CONFIG}: leave config out")
        return self

    def content(self) -> Any:
        return None if self.weights is None else {"config": table_of(self.weights), "weights": checksum(self.weights)}

    def rehearsed(self) -> Self:
        table, config = self.table(), self.sizes()
        # The fewest channels that the norms divide, of which spatial ones have 32 groups, and one block a resolution.
        width = lcm(config.norm_num_groups, 32)
        small = {"block_out_channels": [width] * len(config.block_out_channels), "layers_per_block": 1}
        return self.model_copy(update={"weights": None, "config": {**table, **small}})

    def table(self) -> dict[str, Any]:
        """What ``config.json`` says."""
        return table_of(self.weights) if self.weights is not None else dict(self.config or {})

    def sizes(self) -> VQConfig:
        """What rarkit has to know of it. Raises WeightsError if it is not of a ``VQModel`` that can be a tokenizer."""
        return understood(self.table(), self.weights or "config")

    def codebook_size(self) -> int:
        return self.sizes().num_vq_embeddings

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        sizes = self.sizes()
        return whole_grid(self.name, info, sizes.factor(), sizes.in_channels)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        from rarkit_diffusers._model import DiffusersModel

        return DiffusersModel(self.network(state), device, self.batch_size)

    def without_files(self, state: LearnedState) -> tuple[Self, LearnedState]:
        return self.model_copy(update={"weights": None, "config": self.table()}), network_state(self.network(state))

    def network(self, state: LearnedState | None = None) -> VQModel:
        """The library's model with its weights, in float32 on the CPU.

        Args:
            state: the weights by name; those of the folder if there are none.

        Raises:
            WeightsError: the folder is missing, its files are damaged, or they are not of a ``VQModel``.
        """
        from rarkit_diffusers._model import empty, new_name

        self.sizes()
        cure = "Is the config.json beside it that of these weights?"
        return load_network(empty(self.table()), self.weights, state, cure=cure, sizes=_sizes, renamed=new_name)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that the tensors show, by the word for them."""
    codebook = tensors.get("quantize.embedding.weight")
    if codebook is None or codebook.ndim != 2:
        return {}
    return {"codes (num_vq_embeddings)": codebook.shape[0], "numbers of a code (vq_embed_dim)": codebook.shape[1]}


@hookimpl
def rarkit_tokenizers() -> list[type[Tokenizer]]:
    """Adds the tokenizers of diffusers to rarkit."""
    return [DiffusersVQ]
