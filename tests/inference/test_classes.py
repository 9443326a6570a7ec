"""Classes are found by number, name or unique part of a name, and never guessed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.datasets.imagenet import class_names
from rarkit.errors import UserError
from rarkit.inference.classes import SPREAD, find_classes, spread

IMAGENET = class_names()


def test_every_name_and_number_of_imagenet_leads_to_its_class():
    for label, name in enumerate(IMAGENET):
        assert find_classes([name], IMAGENET) == [label]
        assert find_classes([str(label)], IMAGENET) == find_classes([label], IMAGENET) == [label]


@pytest.mark.parametrize(
    ("query", "label"),
    [("Golden Retriever", 207), ("golden_retriever", 207), (" golden  retriever ", 207), ("cardigan", 474), ("Cardigan", 264)],
)
def test_case_and_spaces_do_not_matter_where_one_name_is_meant(query, label):
    assert find_classes([query], IMAGENET) == [label]


def test_order_is_kept():
    assert find_classes(["cliff", 3, "golden retr"], IMAGENET) == [972, 3, 207]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("CARDIGAN", "matches 2 classes: 'Cardigan' (264), 'cardigan' (474)"),
        ("retriever", "'golden retriever' (207)"),
        ("e", "and "),
        ("golden retreiver", "Did you mean 'golden retriever' (207)"),
        ("qqqqqqqq", "Classes are 0 to 999, such as 'tench' (0)"),
        ("", "no class is called ''"),
        ("1000", "classes are 0 to 999"),
        ("-1", "there is no class -1"),
    ],
)
def test_nothing_is_guessed(query, message):
    with pytest.raises(UserError) as refused:
        find_classes([query], IMAGENET)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 700


def test_a_class_is_named_once():
    with pytest.raises(UserError, match="named twice"):
        find_classes([972, "cliff"], IMAGENET)


def test_a_number_is_a_label_even_where_names_are_numbers():
    assert find_classes(["2"], ["10", "11", "2"]) == [2]
    assert find_classes(["0"], ["10", "11", "2"]) == [0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30_000))
def test_some_classes_lie_evenly_over_all(count):
    labels = spread(count)
    assert len(labels) == min(count, SPREAD)
    assert (labels[0], labels[-1]) == (0, count - 1)
    gaps = {later - former for former, later in pairwise(labels)}
    assert not gaps or max(gaps) - min(gaps) <= 1
