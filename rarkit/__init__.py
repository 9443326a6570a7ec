"""rarkit: autoregressive image generation in which the order of the tokens is a first-class thing.

These are the names for users and plugin authors. Importing them loads neither torch nor zarr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rarkit.attention.base import AttentionBackend, AttentionFunction
    from rarkit.datasets.base import Dataset
    from rarkit.drawing.draw import Drawing, sample
    from rarkit.errors import RarkitError
    from rarkit.features.base import FeatureExtractor, FeatureModel, Features
    from rarkit.images import ImageBlock, ImageInfo, ImageReader
    from rarkit.permutation_schedules.base import PermutationSchedule
    from rarkit.recipe.load import load_recipe
    from rarkit.recipe.schema import Recipe
    from rarkit.registry.component import Component, Location, NotInFingerprint, Settings
    from rarkit.registry.hookspecs import hookimpl
    from rarkit.registry.registry import Parts, Registry
    from rarkit.scan_orders.base import ScanOrder
    from rarkit.stages.pipeline import Plan, plan
    from rarkit.tokenizers.base import Tokenizer, TokenizerModel
    from rarkit.workflow import Run, run

__version__ = "0.1.0"

__all__ = [
    "load_recipe",
    "plan",
    "run",
    "sample",
    "registry",
    "Recipe",
    "Plan",
    "Run",
    "Drawing",
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

_HOMES = {
    "rarkit.attention.base": ("AttentionBackend", "AttentionFunction"),
    "rarkit.datasets.base": ("Dataset",),
    "rarkit.drawing.draw": ("Drawing", "sample"),
    "rarkit.errors": ("RarkitError",),
    "rarkit.features.base": ("FeatureExtractor", "FeatureModel", "Features"),
    "rarkit.images": ("ImageBlock", "ImageInfo", "ImageReader"),
    "rarkit.permutation_schedules.base": ("PermutationSchedule",),
    "rarkit.recipe.load": ("load_recipe",),
    "rarkit.recipe.schema": ("Recipe",),
    "rarkit.registry.component": ("Component", "Location", "NotInFingerprint", "Settings"),
    "rarkit.registry.hookspecs": ("hookimpl",),
    "rarkit.registry.registry": ("Parts", "Registry"),
    "rarkit.scan_orders.base": ("ScanOrder",),
    "rarkit.stages.pipeline": ("Plan", "plan"),
    "rarkit.tokenizers.base": ("Tokenizer", "TokenizerModel"),
    "rarkit.workflow": ("Run", "run"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


# A function with the name of a subpackage: importing the subpackage sets the name, so it is imported (it is empty) before.
import_module("rarkit.registry")


def registry(*, strict: bool = False) -> Parts:
    """The parts that are installed, in one typed registry for each kind.

    Raises:
        PluginError: two parts claim one name, or (``strict``) a plugin failed to load.
    """
    from rarkit.registry import loader

    return loader.registry(strict=strict)


def __getattr__(name: str) -> Any:
    # On first use: `rarkit --help` needs none of this, and a plugin that imports its base class must not load the pipeline.
    if name not in _HOME:
        raise AttributeError(f"module 'rarkit' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
