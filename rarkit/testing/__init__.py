"""Conformance suites and hypothesis strategies for authors of plugins. Needs pytest and hypothesis."""

# ruff: noqa: E402

import pkgutil
from importlib.util import find_spec

if missing := [name for name in ("pytest", "hypothesis") if find_spec(name) is None]:
    raise ImportError(f"rarkit.testing needs {' and '.join(missing)}: pip install pytest hypothesis")

import pytest

# Must come before the suites are imported, or their assertions fail without showing values.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from rarkit.testing.array_reader import ArrayReader, random_images
from rarkit.testing.attention_backend_suite import AttentionBackendSuite
from rarkit.testing.check import check
from rarkit.testing.dataset_suite import DatasetSuite
from rarkit.testing.failure import CheckError
from rarkit.testing.feature_extractor_suite import FeatureExtractorSuite
from rarkit.testing.model_family_suite import ModelFamilySuite
from rarkit.testing.permutation_schedule_suite import PermutationScheduleSuite
from rarkit.testing.scan_order_suite import ScanOrderSuite
from rarkit.testing.strategies import grids, images, orders
from rarkit.testing.tokenizer_suite import TokenizerSuite
from rarkit.testing.tracker_suite import TrackerSuite

__all__ = [
    "check",
    "ScanOrderSuite",
    "PermutationScheduleSuite",
    "TokenizerSuite",
    "AttentionBackendSuite",
    "DatasetSuite",
    "FeatureExtractorSuite",
    "ModelFamilySuite",
    "TrackerSuite",
    "CheckError",
    "ArrayReader",
    "random_images",
    "grids",
    "orders",
    "images",
]
