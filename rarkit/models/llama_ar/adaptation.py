"""Weights of a ``llama_ar`` as the start of another, with other classes or another grid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from rarkit.files.tensor_mismatches import check_tensors
from rarkit.models.adaptation import Adapted, GivenWeights, Grid, shown, with_classes
from rarkit.models.checkpoints import CLASSES, WHAT_FITS, check_config
from rarkit.models.llama_ar.checkpoints import sizes_of
from rarkit.models.llama_ar.config import LlamaARConfig

EMBEDDINGS = "model.embed_tokens.weight"


@torch.no_grad()
def adapted(config: LlamaARConfig, grid: Grid, given: GivenWeights, new: Mapping[str, Tensor]) -> Adapted:
    """See ``ModelFamily.adapted``: embeddings for the new classes. Rotary positions have no weights."""
    if given.config is not None:
        check_config(given.place, config, given.config, {"num_classes", "seq_len", "grid"})
    tensors = dict(given.tensors)
    changes: list[str] = []
    if EMBEDDINGS in tensors:
        tensors[EMBEDDINGS], told = with_classes(given, tensors[EMBEDDINGS], new[EMBEDDINGS], config.codebook_size)
        changes += told
    if given.grid not in (None, grid):
        changes.append(f"rotary positions, trained on a grid of {shown(given.grid)}, are used on {shown(grid)} as they are")
    check_tensors(given.place, "model", new, tensors, lambda different: WHAT_FITS, _own_sizes)
    return Adapted({name: tensors[name] for name in new}, tuple(changes))


def _own_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that must be equal, by the word for them."""
    return {word: size for word, size in sizes_of(tensors).items() if word != CLASSES}
