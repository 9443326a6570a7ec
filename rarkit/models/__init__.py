"""The RAR model, its sizes and its checkpoints. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rarkit.models.config import RARConfig
from rarkit.models.sizes import PRESETS

if TYPE_CHECKING:
    from rarkit.models.checkpoints import load_rar, save_rar
    from rarkit.models.merged import MergedRAR
    from rarkit.models.rar import RAR
    from rarkit.models.transformer import OrderedTransformer
    from rarkit.weights import checksum

__all__ = ["RARConfig", "PRESETS", "RAR", "MergedRAR", "OrderedTransformer", "load_rar", "save_rar", "checksum"]

_ON_USE = {
    "RAR": "rarkit.models.rar",
    "MergedRAR": "rarkit.models.merged",
    "OrderedTransformer": "rarkit.models.transformer",
    "load_rar": "rarkit.models.checkpoints",
    "save_rar": "rarkit.models.checkpoints",
    "checksum": "rarkit.weights",
}


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        from importlib import import_module

        return getattr(import_module(_ON_USE[name]), name)
    raise AttributeError(f"module 'rarkit.models' has no attribute {name!r}")
