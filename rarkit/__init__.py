"""rarkit: autoregressive image generation in which the order of the tokens is a first-class thing.

These are the names for users and plugin authors. Importing them loads neither torch nor zarr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rarkit.attention.base import AttentionBackend, AttentionFunction
from rarkit.datasets.base import Dataset
from rarkit.errors import RarkitError
from rarkit.features.base import FeatureExtractor, FeatureModel, Features
from rarkit.images import ImageBlock, ImageInfo, ImageReader
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.registry.component import Component, Location, NotInFingerprint, Settings
from rarkit.registry.hookspecs import hookimpl
from rarkit.registry.loader import registry
from rarkit.registry.registry import Parts, Registry
from rarkit.scan_orders.base import ScanOrder
from rarkit.tokenizers.base import Tokenizer, TokenizerModel

if TYPE_CHECKING:
    from rarkit.recipe.load import load_recipe
    from rarkit.recipe.schema import Recipe
    from rarkit.stages.pipeline import Plan, plan
    from rarkit.workflow import Run, run

__version__ = "0.1.0"

__all__ = [
    "load_recipe",
    "plan",
    "run",
    "registry",
    "Recipe",
    "Plan",
    "Run",
    "Parts",
    "Registry",
    "Component",
    "Settings",
    "Location",
    "NotInFingerprint",
    "hookimpl",
    "ScanOrder",
    "PermutationSchedule",
    "Tokenizer",
    "TokenizerModel",
    "AttentionBackend",
    "AttentionFunction",
    "Dataset",
    "ImageInfo",
    "ImageBlock",
    "ImageReader",
    "FeatureExtractor",
    "FeatureModel",
    "Features",
    "RarkitError",
    "__version__",
]

_ON_USE = {
    "load_recipe": "rarkit.recipe.load",
    "Recipe": "rarkit.recipe.schema",
    "plan": "rarkit.stages.pipeline",
    "Plan": "rarkit.stages.pipeline",
    "run": "rarkit.workflow",
    "Run": "rarkit.workflow",
}


def __getattr__(name: str) -> Any:
    # The pipeline is imported on first use: a plugin module that imports its base class must not load it while it is loading.
    if name in _ON_USE:
        from importlib import import_module

        return getattr(import_module(_ON_USE[name]), name)
    raise AttributeError(f"module 'rarkit' has no attribute {name!r}")
