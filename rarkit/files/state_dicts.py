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
    from torch import Tensor

    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return Unwrapped(dict(content))
    inner = {name: unwrapped(value) for name, value in content.items() if isinstance(name, str) and not name.startswith("optim")}
    candidates = {name: value for name, value in inner.items() if value is not None}
    known = [name for name in (*EMA, *MODEL) if name in candidates]
    if not known and len(candidates) != 1:
        return None
    chosen = known[0] if known else next(iter(candidates))
    if len(known) > 1:
        return Unwrapped(candidates[chosen].tensors, chosen, tuple(known[1:]))
    return candidates[chosen]


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
