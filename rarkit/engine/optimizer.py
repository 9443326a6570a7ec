"""Optimizers: AdamW with the groups of the released training, alone or beside Muon for the matrices inside blocks."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from rarkit.engine.learning_rates import learning_rate
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError

NO_DECAY = ("ln", "bias", "embed", "norm", "gamma", "mask_token", "latent_tokens")
"""Weights whose names contain one of these have no weight decay, as in the released training code."""
NOT_HIDDEN = ("adaLN_modulation",)
"""Matrices inside blocks that AdamW trains even beside Muon, by a word in their names: they make scales, shifts and gates, which
are vectors."""
RELATIVE_RATE = "relative_rate"
"""The entry of a group of weights with its learning rate as a multiple of the settings'; 1 where it is missing."""


def takes_decay(name: str, weight: torch.Tensor) -> bool:
    """Whether a weight has weight decay: matrices do, unless excluded by name (``NO_DECAY``)."""
    return weight.ndim >= 2 and not any(word in name for word in NO_DECAY)


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW over the weights of any module; the caller sets the learning rate of its groups at each step.

    Matrices have the settings' weight decay, unless ``NO_DECAY`` excludes them by name, which it does for embeddings, positions,
    norms and biases.
    """
    return _adamw(model.named_parameters(), settings)


def make_optimizers(network: nn.Module, settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers of a network's weights: AdamW, or Muon for its hidden matrices and AdamW for all other weights.

    ``set_learning_rates`` sets their rates at each step. Make them after the network was sharded.

    Raises:
        RecipeError: the network has no hidden matrices.
    """
    if settings.optimizer == "adamw":
        return [make_optimizer(network, settings)]
    from rarkit.engine.muon import Muon

    hidden = hidden_matrices(network)
    if not hidden:
        raise RecipeError(
            f"train.optimizer = 'muon' is for the matrices of linear layers in blocks (an nn.ModuleList), which "
            f"{type(network).__name__} has not. Set train.optimizer = 'adamw'."
        )
    muon = Muon(hidden.values(), weight_decay=settings.weight_decay)
    for group in muon.param_groups:
        group[RELATIVE_RATE] = (settings.muon_learning_rate or settings.learning_rate) / settings.learning_rate
    return [muon, _adamw((item for item in network.named_parameters() if item[0] not in hidden), settings)]


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], step: int, settings: TrainSettings) -> float:
    """Sets the rates of all groups of weights for a step, counted from 0, and returns AdamW's."""
    rate = learning_rate(step, settings)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(RELATIVE_RATE, 1.0)
    return rate


def hidden_matrices(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that Muon is for, by name: matrices of linear layers inside blocks, which are modules of an ``nn.ModuleList``.

    Not embeddings, positional tables and the head (arXiv 2502.16982, section 2.1), nor the matrices of ``NOT_HIDDEN``.
    """
    modules = dict(network.named_modules())
    lists = tuple(f"{name}." for name, module in modules.items() if isinstance(module, nn.ModuleList))
    linear = {f"{name}.weight" for name, module in modules.items() if isinstance(module, nn.Linear) and name.startswith(lists)}
    excluded = (*NO_DECAY, *NOT_HIDDEN)
    return {
        name: weight
        for name, weight in network.named_parameters()
        if name in linear and weight.ndim == 2 and not any(word in name for word in excluded)
    }


def _adamw(named: Iterable[tuple[str, nn.Parameter]], settings: TrainSettings) -> torch.optim.AdamW:
    weights = list(named)
    groups = [
        {"params": [weight for name, weight in weights if takes_decay(name, weight)], "weight_decay": settings.weight_decay},
        {"params": [weight for name, weight in weights if not takes_decay(name, weight)], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)
