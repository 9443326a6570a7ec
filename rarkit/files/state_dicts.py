"""From what checkpoints hold to plain tensors by name: training scripts wrap state dicts, and PyTorch's wrappers rename tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, final

if TYPE_CHECKING:
    from torch import Tensor

EMA = ("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema")
"""Entries of checkpoints with the moving average of the weights, which is what is sampled and published."""
MODEL = ("model", "state_dict", "model_state", "model_state_dict", "module", "network", "net", "params", "weights")
"""Entries with the weights themselves."""
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What ``torch.compile``, FSDP and activation checkpointing insert into names, at any depth."""
_LIGHTNING = "pytorch-lightning_version"
"""The entry by which a checkpoint of Lightning is known."""
_PARALLEL = "module."
"""What DataParallel, DistributedDataParallel and AveragedModel put in front of all names."""
_COUNTER = "n_averaged"
"""AveragedModel's own tensor."""


@final
class Unwrapped(NamedTuple):
    """A state dict, and where a checkpoint has several: the entry that was chosen, and the others."""

    tensors: dict[str, Tensor]
    chosen: str = ""
    others: tuple[str, ...] = ()


def unwrapped(content: Any) -> Unwrapped | None:
    """The state dict in a checkpoint: the content itself, or one of its entries, at any depth; None if there is none or no telling.

    The moving average (``EMA``) is preferred to the weights themselves (``MODEL``), and either to an entry of another name.
    """
    return _unwrapped(content, {})


def _unwrapped(content: Any, known_of: dict[int, Unwrapped | None]) -> Unwrapped | None:
    """``known_of``: what was found in each entry before, by its id; entries may contain the same entry any number of times."""
    if not isinstance(content, Mapping):
        return None
    if id(content) not in known_of:
        known_of[id(content)] = _searched(content, known_of)
    return known_of[id(content)]


def _searched(content: Mapping[Any, Any], known_of: dict[int, Unwrapped | None]) -> Unwrapped | None:
    from torch import Tensor

    if _LIGHTNING in content and (state := _unwrapped(content.get("state_dict"), known_of)) is not None:
        return _attribute(state.tensors)
    if content and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return Unwrapped(dict(content))
    named = {name: value for name, value in content.items() if isinstance(name, str) and not name.startswith("optim")}
    inner = {name: _unwrapped(value, known_of) for name, value in named.items()}
    candidates = {name: value for name, value in inner.items() if value is not None}
    known = [name for name in (*EMA, *MODEL) if name in candidates]
    if not known and len(candidates) != 1:
        return None
    chosen = known[0] if known else next(iter(candidates))
    if len(known) > 1:
        return Unwrapped(candidates[chosen].tensors, chosen, tuple(known[1:]))
    return candidates[chosen]


def _attribute(tensors: Mapping[str, Tensor]) -> Unwrapped:
    """The network of a LightningModule, which keeps it, and perhaps its moving average and losses, in attributes: ``model.…``.

    If no attribute has a usual name, and there are several, the module itself is taken for the network.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        attribute, _, rest = _WRAPPERS.sub("", name).partition(".")
        parts.setdefault(attribute, {})[rest] = tensor
    known = [name for name in (*EMA, *MODEL) if name in parts and "" not in parts[name]]
    if not known and (len(parts) > 1 or "" in next(iter(parts.values()))):
        return Unwrapped(dict(tensors))
    chosen = known[0] if known else next(iter(parts))
    return Unwrapped(parts[chosen], chosen if known[1:] else "", tuple(known[1:]))


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that the bare module gives them.

    A leading ``module.`` is taken off where all names have it. If two tensors would get one name, all keep theirs.
    """
    renamed = {name: _WRAPPERS.sub("", name) for name in tensors}
    while (own := [name for name in renamed.values() if name != _COUNTER]) and all(name.startswith(_PARALLEL) for name in own):
        renamed = {name: plain.removeprefix(_PARALLEL) for name, plain in renamed.items() if plain != _COUNTER}
    if len(set(renamed.values())) < len(renamed):
        return dict(tensors)
    return {plain: tensors[name] for name, plain in renamed.items()}
