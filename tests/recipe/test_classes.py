"""Classes are found by number, name or unique part of a name, and never guessed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.datasets.imagenet import class_names, synsets
from rarkit.errors import UserError
from rarkit.recipe.classes import SPREAD, find_classes, spread

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


NUMBERED = ["10", "11", "2", "café"]


@pytest.mark.parametrize(
    ("query", "label"),
    [("0", 0), ("3", 3), ("10", 0), (11, 1), ("label:2", 2), ("name:2", 2), ("name:10", 0), ("label: 1", 1)],
)
def test_a_number_is_the_label_or_the_name_that_it_can_only_be(query, label):
    assert find_classes([query], NUMBERED) == [label]


@pytest.mark.parametrize("query", ["1", 1, " 1"])
@pytest.mark.parametrize("names", [["10", "2", "1"], ["x", "y", "01"], ["x", "y", "001", "z"]])
def test_a_number_with_two_meanings_is_refused_with_both(query, names):
    with pytest.raises(UserError) as refused:
        find_classes([query], names)
    assert f"label 1 is class {names[1]!r}" in str(refused.value)
    assert f"class {names[2]!r} has label 2" in str(refused.value)
    # Both cures work.
    assert f"Write label:1 for class {names[1]!r}, or name:{names[2]} for label 2." in str(refused.value)
    assert find_classes(["label:1", f"name:{names[2]}"], names) == [1, 2]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(0, 30), st.sampled_from([str, "{:02}".format, "class_{}".format]))
def test_no_number_leads_to_a_class_without_being_its_only_meaning(count, number, written):
    """The folders 1 to ``count``, in the order of their names."""
    names = sorted(written(folder) for folder in range(1, count + 1))
    readings = {number} if number < count else set()
    readings |= {label for label, name in enumerate(names) if name.isdecimal() and int(name) == number}
    if len(readings) == 1:
        assert find_classes([number], names) == list(readings)
    else:
        with pytest.raises(UserError, match="two meanings" if readings else "there is no class"):
            find_classes([number], names)
    assert [find_classes([name], names)[0] for name in names if not name.isdecimal() or name[0] == "0"] == [
        label for label, name in enumerate(names) if not name.isdecimal() or name[0] == "0"
    ]


def test_names_that_look_like_a_prefix_are_names():
    assert find_classes(["name:2", "label:0"], ["label:0", "a", "b", "name:2"]) == [3, 0]


def test_synset_ids_are_names():
    assert find_classes(["n01440764", "N02099601", "n15075141"], IMAGENET) == [0, 207, 999]
    assert [find_classes([name], IMAGENET)[0] for name in synsets()[::50]] == list(range(0, 1000, 50))
    # Folders that are named by synset ids answer to both, too.
    assert find_classes(["n02099601", "tench"], synsets()) == [207, 0]
    assert find_classes(["n02099601"], ["n01440764", "n02099601"]) == [1]
    with pytest.raises(UserError, match="no class is called 'n02099602'"):
        find_classes(["n02099602"], IMAGENET)
    with pytest.raises(UserError, match="named twice"):
        find_classes(["n01440764", "tench"], IMAGENET)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30_000))
def test_some_classes_lie_evenly_over_all(count):
    labels = spread(count)
    assert len(labels) == min(count, SPREAD)
    assert (labels[0], labels[-1]) == (0, count - 1)
    gaps = {later - former for former, later in pairwise(labels)}
    assert not gaps or max(gaps) - min(gaps) <= 1
