"""The hooks by which a distribution brings parts to rarkit.

A plugin is a module (or object) named by an entry point in the group ``rarkit``. Each hook takes no arguments, returns a list of
classes (not instances), and does nothing else: it must not import torch, read files or look at the machine. Hooks are called
once, when the registry is first asked for; the order in which plugins are called carries no meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from rarkit.attention.base import AttentionBackend
    from rarkit.datasets.base import Dataset
    from rarkit.features.base import FeatureExtractor
    from rarkit.permutation_schedules.base import PermutationSchedule
    from rarkit.scan_orders.base import ScanOrder
    from rarkit.tokenizers.base import Tokenizer

PROJECT = "rarkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def rarkit_scan_orders() -> list[type[ScanOrder]]:  # type: ignore[empty-body]
    """Scan orders: bijections from step to raster index. Chosen by ``[scan_order] name = …``."""


@hookspec
def rarkit_permutation_schedules() -> list[type[PermutationSchedule]]:  # type: ignore[empty-body]
    """Permutation schedules: the random ratio as a function of progress. Chosen by ``[permutation_schedule] name = …``."""


@hookspec
def rarkit_tokenizers() -> list[type[Tokenizer]]:  # type: ignore[empty-body]
    """Tokenizers: images to grids of codes and back. Chosen by ``[tokenizer] name = …``."""


@hookspec
def rarkit_attention_backends() -> list[type[AttentionBackend]]:  # type: ignore[empty-body]
    """Attention backends: the inner product of the transformer. Chosen by ``[attention] name = …``."""


@hookspec
def rarkit_datasets() -> list[type[Dataset]]:  # type: ignore[empty-body]
    """Datasets: labelled images, in a fixed order. Chosen by ``[dataset] name = …``."""


@hookspec
def rarkit_feature_extractors() -> list[type[FeatureExtractor]]:  # type: ignore[empty-body]
    """Feature extractors: what evaluation compares images in. Chosen by ``[evaluate.features] name = …``."""
