"""The suites pass on what rarkit ships and on small sound parts, and each of their tests fails on a part that is wrong."""

from __future__ import annotations

import importlib
import re
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit.testing
from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.digits import Digits
from rarkit.errors import RarkitWarning
from rarkit.features.classifier import Classifier
from rarkit.models.rar.family import RARFamily
from rarkit.permutation_schedules.linear import Linear
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral
from rarkit.testing import (
    AttentionBackendSuite,
    CheckError,
    DatasetSuite,
    FeatureExtractorSuite,
    ModelFamilySuite,
    PermutationScheduleSuite,
    ScanOrderSuite,
    TokenizerSuite,
    TrackerSuite,
    check,
    grids,
    images,
    orders,
)
from rarkit.testing.check import SUITES, check_names
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel
from tests.testing.mutants import FAULTY, MUTANTS, SETTINGS
from tests.testing.wrong_attention import Wrong
from tests.testing.wrong_datasets import Noise
from tests.testing.wrong_feature_extractors import Flat
from tests.testing.wrong_model_family import Bent
from tests.testing.wrong_orders import WrongOrder
from tests.testing.wrong_schedules import WrongSchedule
from tests.testing.wrong_tokenizers import GREY, Levels
from tests.testing.wrong_trackers import Lines, tracked

pytest_plugins = "pytester"


class TestAttention(AttentionBackendSuite):
    parts = (Plain(), SDPA(), Wrong())


class TestForwardsOnly(AttentionBackendSuite):
    parts = (Flex(),)
    gradients = False
    calls = 1


class TestDatasets(DatasetSuite):
    parts = (Digits(), Digits(test_fraction=0.5), Noise())


class TestTokenizers(TokenizerSuite):
    parts = (PatchKMeans(codes=16), Pixel(), Levels())


class TestFeatureExtractors(FeatureExtractorSuite):
    parts = (Classifier(steps=3, width=4), Flat())
    info = GREY


class TestModelFamilies(ModelFamilySuite):
    parts = (Bent(), Bent(attention_dropout=0.3, class_dropout=0.0))


class TestTrackers(TrackerSuite):
    parts = (Lines(),)
    tracked = tracked


class TestSmallSoundParts(ScanOrderSuite):
    parts = (WrongOrder(),)


class TestSmallSoundSchedules(PermutationScheduleSuite):
    parts = (WrongSchedule(),)
    falls = True


def test_there_are_enough_mutants_of_every_kind():
    by_kind = {kind: sum(mutant.part.kind == kind for mutant in MUTANTS) for kind in SUITES}
    assert sum(by_kind.values()) >= 60
    assert min(by_kind.values()) >= 10, by_kind


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught_by_its_test(mutant):
    kind = mutant.part.kind
    suite = type("Made", (SUITES[kind],), {"parts": (mutant.part,), **SETTINGS.get(kind, {})})()
    with pytest.raises(CheckError) as caught:
        getattr(suite, f"test_{mutant.test}")(mutant.part)
    failure = caught.value
    assert failure.part is mutant.part or failure.part == mutant.part
    assert str(failure).startswith(f"{mutant.part!r}, {failure.given}: {failure.fault}.\n{failure.cure}.")
    assert re.search(mutant.words, str(failure), re.DOTALL), str(failure)
    assert all((failure.given, failure.fault, failure.cure))


def test_every_test_of_every_suite_has_a_mutant():
    # By function: what suites inherit counts once.
    tests = {getattr(suite, name) for suite in SUITES.values() for name in check_names(suite)}
    tried = {getattr(SUITES[mutant.part.kind], f"test_{mutant.test}") for mutant in MUTANTS}
    names = {test.__qualname__ for test in tests - tried}
    # Their faults are those of the tests beside them, of other sizes and inputs.
    assert names == {
        "ScanOrderSuite.test_rank_is_the_inverse",
        "AttentionBackendSuite.test_it_is_softmax_attention_of_any_size",
        "AttentionBackendSuite.test_models_train_and_sample_with_it",
    }


@pytest.mark.parametrize("part", FAULTY, ids=lambda part: part.__name__)
def test_every_fault_is_tried(part):
    faults = set(get_args(part.model_fields["fault"].annotation)) - {"none"}
    assert faults == {fault for faults in FAULTY[part].values() for fault in faults}


def test_check_takes_an_instance_or_a_class():
    check(Spiral(direction="outward"))
    check(Raster, grids=[(3, 5)])
    check(Linear, falls=True)


def test_check_tells_the_first_failure_or_all():
    with pytest.raises(AssertionError, match="on a grid of 1×2: "):
        check(WrongOrder(fault="twice"))
    with pytest.raises(AssertionError) as caught:
        check(WrongOrder(fault="picky"), every=True, grids=[(2, 2), (4, 4)])
    assert str(caught.value).count("is refused") == 1
    with pytest.raises(AssertionError) as caught:
        check(WrongSchedule(fault="rising_past_500"), every=True, falls=True)
    assert "rises from" in str(caught.value)


def test_who_seeds_a_global_generator_is_caught_the_second_time_too():
    for _ in range(2):
        with pytest.raises(AssertionError, match="global generator of numpy"):
            check(Levels(fault="seeded_globally"), info=GREY)


def test_check_says_what_it_cannot_take():
    with pytest.raises(TypeError, match=r"RARFamily cannot be made without settings .*pass an instance"):
        check(RARFamily)
    with pytest.raises(TypeError, match="check takes a part"):
        check("raster")
    with pytest.raises(TypeError, match="no attribute 'fall'; did you mean 'falls'"):
        check(Linear, fall=True)


BESIDE = """
from typing import Literal
import numpy as np
import rarkit

class Rows(rarkit.ScanOrder):
    \"\"\"Row after row.\"\"\"

    name: Literal["rows_beside"] = "rows_beside"

    def order(self, height: int, width: int) -> np.ndarray:
        return np.arange(height * width)
"""


def test_a_part_of_a_module_beside_a_notebook_is_checked_in_another_process(tmp_path, monkeypatch):
    (tmp_path / "beside_a_notebook.py").write_text(BESIDE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as prompts and notebooks have it
    check(importlib.import_module("beside_a_notebook").Rows)


def test_a_part_of_a_notebook_is_checked_but_for_other_processes():
    class Here(rarkit.ScanOrder):
        """Raster."""

        name: str = "here"

        def order(self, height, width):
            return np.arange(height * width)

    with pytest.warns(RarkitWarning, match="defined in a function, which another process cannot import"):
        check(Here)


def test_a_suite_without_parts_fails(pytester):
    pytester.makepyfile("import rarkit.testing\n\n\nclass TestNothing(rarkit.testing.ScanOrderSuite):\n    pass\n")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").stdout.fnmatch_lines(["*TestNothing has nothing to test: set parts*"])


@given(grids(5), orders(6), st.integers(1, 4), st.data())
def test_strategies_give_what_they_say(grid, order, size, data):
    assert all(1 <= side <= 5 for side in grid)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(6))
    drawn = data.draw(images(size, 2 * size, 3, most=2))
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (size, 2 * size, 3)
    assert 1 <= len(drawn) <= 2


def test_check_turns_any_error_of_a_part_into_a_failure():
    with pytest.raises(AssertionError) as caught:
        check(WrongOrder(fault="crashing"), every=True, grids=[(11, 3)])
    assert "on a grid of 11×1: raises ZeroDivisionError" in str(caught.value)
    assert "checked for it_serves_the_grids_it_should: raises ZeroDivisionError" in str(caught.value)
