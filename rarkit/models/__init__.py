"""The RAR model, its sizes and its checkpoints. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rarkit.models.rar.config import RARConfig
from rarkit.models.rar.sizes import PRESETS

if TYPE_CHECKING:
    from rarkit.models.rar.checkpoints import load_rar, save_rar
    from rarkit.models.rar.merged import MergedRAR
    from rarkit.models.rar.rar import RAR
    from rarkit.models.rar.transformer import OrderedTransformer
    from rarkit.files.weights import checksum

__all__ = ["RARConfig", "PRESETS", "RAR", "MergedRAR", "OrderedTransformer", "load_rar", "save_rar", "checksum"]

_ON_USE = {
    "RAR": "rarkit.models.rar.rar",
    "MergedRAR": "rarkit.models.rar.merged",
    "OrderedTransformer": "rarkit.models.rar.transformer",
    "load_rar": "rarkit.models.rar.checkpoints",
    "save_rar": "rarkit.models.rar.checkpoints",
    "checksum": "rarkit.files.weights",
}


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        from importlib import import_module

        return getattr(import_module(_ON_USE[name]), name)
    raise AttributeError(f"module 'rarkit.models' has no attribute {name!r}")
