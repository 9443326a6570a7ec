"""Weights of a RAR as the start of another, with other classes or another grid.

Shape letters: R rows of a table, L tokens of an image, D width, H, W height and width of the grid.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from rarkit.errors import WeightsError
from rarkit.files.tensor_mismatches import check_tensors
from rarkit.models.adaptation import Adapted, GivenWeights, Grid, shown, with_classes
from rarkit.models.checkpoints import CLASSES, TOKENS, WHAT_FITS, check_config
from rarkit.models.rar.checkpoints import sizes_of
from rarkit.models.rar.config import SPARE_POSITIONS, RARConfig
from rarkit.models.rar.layers import PREFIX
from rarkit.models.rar.rar import TABLES

EMBEDDINGS, STEPS = "embeddings.weight", "timesteps_embeddings"


@torch.no_grad()
def adapted(config: RARConfig, grid: Grid, given: GivenWeights, new: Mapping[str, Tensor]) -> Adapted:
    """See ``ModelFamily.adapted``: embeddings for the new classes, positions and step embeddings interpolated."""
    if "scan_pos_embed" in given.tensors:
        raise WeightsError(
            f"the positions of {given.place} were merged for one scan order, and cannot be trained. Name the model before it was "
            "merged."
        )
    if given.config is not None:
        check_config(given.place, config, given.config, {"num_classes", "seq_len"})
    tensors = dict(given.tensors)
    changes: list[str] = []
    if EMBEDDINGS in tensors:
        # A mask token, which RAR does not use, is between codes and classes.
        first = config.codebook_size + 1
        tensors[EMBEDDINGS], told = with_classes(given, tensors[EMBEDDINGS], new[EMBEDDINGS], first)
        changes += told
    rows = tensors[TABLES[0]].shape[1] - SPARE_POSITIONS if TABLES[0] in tensors and tensors[TABLES[0]].ndim == 3 else 0
    if rows > 0 and (before := given.grid_of(rows, grid)) != grid:
        for name in _adaptable(TABLES, tensors, new):
            tensors[name] = _positions(tensors[name], new[name], before, grid)
        changes.append(f"positions are interpolated from a grid of {shown(before)} to {shown(grid)} (bicubic)")
        if rows != config.seq_len and _adaptable((STEPS,), tensors, new):
            tensors[STEPS] = _steps(tensors[STEPS], new[STEPS], rows, config.seq_len)
            changes.append(f"embeddings of steps are interpolated from {rows:,} to {config.seq_len:,} steps (linear)")
    check_tensors(given.place, "model", new, tensors, lambda different: WHAT_FITS, _own_sizes)
    return Adapted({name: tensors[name] for name in new}, tuple(changes))


def _adaptable(names: tuple[str, ...], tensors: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> list[str]:
    """Those that both models have with one width; others are refused when all is compared."""
    both = [name for name in names if name in tensors and name in new]
    return [name for name in both if tensors[name].ndim == 3 and tensors[name].shape[::2] == new[name].shape[::2]]


def _positions(table_1RD: Tensor, new_1RD: Tensor, before: Grid, now: Grid) -> Tensor:
    """A positional table for another grid: the rows of the prefix as they are, those of cells interpolated, spare ones new."""
    old, many = before[0] * before[1], now[0] * now[1]
    cells_1DHW = table_1RD[:, PREFIX : PREFIX + old].float().mT.reshape(1, -1, *before)
    # With antialias, cubics with a = −0.5, which keep what grows linearly as it is; without, −0.75, which do not.
    resized_1DHW = functional.interpolate(cells_1DHW, size=now, mode="bicubic", antialias=True)
    adapted_1RD = new_1RD.clone()
    adapted_1RD[:, :PREFIX] = table_1RD[:, :PREFIX]
    adapted_1RD[:, PREFIX : PREFIX + many] = resized_1DHW.flatten(2).mT
    return adapted_1RD


def _steps(table_1RD: Tensor, new_1RD: Tensor, before: int, now: int) -> Tensor:
    """Step embeddings for another number of steps: the row of cls as it is, first and last step as they are, spare ones new."""
    steps_1DL = table_1RD[:, 1 : 1 + before].float().mT
    adapted_1RD = new_1RD.clone()
    adapted_1RD[:, :1] = table_1RD[:, :1]
    adapted_1RD[:, 1 : 1 + now] = functional.interpolate(steps_1DL, size=now, mode="linear", align_corners=True).mT
    return adapted_1RD


def _own_sizes(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that must be equal, by the word for them."""
    return {word: size for word, size in sizes_of(tensors).items() if word not in (CLASSES, TOKENS)}
