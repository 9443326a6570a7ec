"""Ranks with other versions, recipes, data or plans than the first are refused by name; other paths to the same data are not."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rarkit import load_recipe, plan
from rarkit.errors import DatasetError, RankError, StoreError
from rarkit.pipeline import agreement
from rarkit.pipeline.agreement import check_agreement
from rarkit.runtime.ranks import ALONE
from tests.rank_threads import threads


@pytest.fixture
def images(tmp_path):
    """Makes a file of images with this level everywhere, and returns the override that names it."""

    def make(name, level):
        path = tmp_path / f"{name}.npz"
        np.savez(path, images=np.full((12, 4, 4, 1), level, np.uint8), labels=np.arange(12) % 3)
        return f"dataset={{name = 'npz', path = '{path}'}}"

    return make


def told(plans, monkeypatch=None, versions=None):
    """What each rank returned or raised, whose plans and versions these are."""
    own = threading.local()
    if versions is not None:
        monkeypatch.setattr(agreement, "versions", lambda: versions[own.rank])

    def work(ranks):
        own.rank = ranks.rank
        try:
            check_agreement(plans[ranks.rank], ranks)
        except BaseException as error:
            raise ranks.failing(error) from None

    return threads(len(plans), work)


@pytest.fixture
def planned(small_recipe, tmp_path):
    return lambda *overrides: plan(load_recipe(small_recipe, overrides), str(tmp_path / "store"))


def test_ranks_that_are_alike_agree(planned):
    assert told([planned(), planned(), planned()]) == [None] * 3
    check_agreement(planned(), ALONE)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=7", "the recipe differs from that of the first rank: train.steps: 6 → 7"),
        # In no fingerprint, but it decides which rank draws what.
        ("sample.batch_size=33", r"the recipe differs .*: sample.batch_size: \d+ → 33"),
    ],
)
def test_another_recipe_is_refused(override, message, planned):
    first, second = told([planned(), planned(override)])
    assert isinstance(first, RankError)
    with pytest.raises(RankError, match=message):
        raise first
    assert second.told


def test_another_version_is_refused(planned, monkeypatch):
    same = planned()
    first, _ = told([same, same], monkeypatch, [{"rarkit": "1.0", "torch": "2.9"}, {"rarkit": "1.0", "torch": "2.8"}])
    with pytest.raises(RankError, match=r'the version of a package differs .*: torch: "2\.9" → "2\.8"'):
        raise first


def test_another_version_of_a_part_is_refused(planned, monkeypatch):
    first_plan = planned()
    before = agreement._parts(first_plan)
    monkeypatch.setattr(type(first_plan.recipe.tokenizer), "version", 99)
    after = agreement._parts(first_plan)
    assert before["tokenizer"] == {**after["tokenizer"], "version": before["tokenizer"]["version"]}
    parts = iter([before, after])
    lock = threading.Lock()

    def each(planned):
        with lock:
            return next(parts)

    monkeypatch.setattr(agreement, "_parts", each)
    found = told([first_plan, first_plan])
    assert any("the version or source of a part differs" in str(error) and "tokenizer.version" in str(error) for error in found)


def test_other_data_is_refused_and_another_path_is_not(planned, images):
    here, copy, other = planned(images("here", 3)), planned(images("copy", 3)), planned(images("other", 4))
    assert told([here, copy]) == [None, None]
    first, _ = told([here, other])
    with pytest.raises(RankError, match=r"what the stages read \(data, weights\) differs .*dataset\.content"):
        raise first


def test_data_that_is_missing_on_a_rank_is_named(planned, images, tmp_path):
    here, gone = images("here", 3), images("gone", 3)
    plans = [planned(here)]
    (tmp_path / "gone.npz").unlink()
    plans.append(planned(gone))
    first, _ = told(plans)
    with pytest.raises(RankError, match=r"^rank 1 on .*gone\.npz"):
        raise first
    assert not isinstance(first, StoreError | DatasetError)


def test_what_differs_is_told_briefly():
    many = {f"key{number}": number for number in range(9)}
    assert agreement._differing(many, {**many, "key2": 5}) == "key2: 2 → 5 (the first rank's → this one's)"
    assert "key0: 0 → 1, key1: 1 → 2, key2: 2 → 3 and 6 more" in agreement._differing(
        many, {key: value + 1 for key, value in many.items()}
    )


def test_ranks_that_do_not_agree_stop():
    def work(ranks):
        try:
            agreement.agree(ranks, "the plan", {"train": "run" if ranks.rank < 2 else "cached"})
        except BaseException as error:
            raise ranks.failing(error) from None

    first, second, third = threads(3, work)
    assert isinstance(first, RankError)
    assert not first.told
    assert str(first).startswith("rank 2 on ")
    assert (
        'the plan differs from that of the first rank: train: "run" → "cached" (the first rank\'s → this one\'s). All ranks'
        in str(first)
    )
    assert second.told
    assert third.told
