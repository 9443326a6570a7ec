"""Labels of all types, and classes that files name in different orders: a label is the class of that name."""

from __future__ import annotations

import pytest
from animals import made, png, read, rows, written
from datasets import ClassLabel, Value

from rarkit.errors import DatasetError


@pytest.mark.parametrize(
    ("labels", "label_type", "names", "numbers"),
    [
        (["b", "a", "b"], Value("string"), ("a", "b"), [1, 0, 1]),
        (["b", "a", "b"], Value("large_string"), ("a", "b"), [1, 0, 1]),
        ([2, 0, 1], Value("int64"), ("0", "1", "2"), [2, 0, 1]),
        ([2, 0, 1], Value("uint8"), ("0", "1", "2"), [2, 0, 1]),
        ([True, False, True], Value("bool"), ("0", "1"), [1, 0, 1]),
    ],
)
def test_labels_of_all_types(tmp_path, labels, label_type, names, numbers):
    rows(range(3), labels, label_type).to_parquet(tmp_path / "a.parquet")
    part = made(tmp_path / "a.parquet", test="")
    assert part.info().class_names == names
    assert [label for _, label in read(part)] == numbers
    single = made(tmp_path / "a.parquet", test="", label="")
    assert (single.info().class_names, read(single)) == (("images",), [(0, 0), (1, 0), (2, 0)])


def test_names_differ_from_file_to_file(tmp_path):
    for number, names in enumerate((["b", "c"], ["c", "a"])):
        written(tmp_path / f"{number}.parquet", image=[png(2 * number), png(2 * number + 1)], label=names)
    part = made(tmp_path / "*.parquet", test="")
    assert part.info().class_names == ("a", "b", "c")
    assert read(part) == [(0, 1), (1, 2), (2, 2), (3, 0)]
    written(tmp_path / "2.parquet", image=[png(9)], label=[1])
    with pytest.raises(DatasetError, match=r"the column 'label' of .*0\.parquet has another type in other files"):
        made(tmp_path / "*.parquet", test="").info()


def test_classes_of_another_table_are_those_of_the_same_names(tmp_path):
    """The library numbers the classes that a table has: those of test images may be fewer, and in another order."""
    rows(range(3), [0, 1, 2]).to_parquet(tmp_path / "a.parquet")
    rows(range(3), [0, 1, 0], ClassLabel(names=["ant", "cat"])).to_parquet(tmp_path / "b.parquet")
    part = made(tmp_path / "a.parquet", test_path=str(tmp_path / "b.parquet"))
    assert part.info().class_names == ("cat", "dog", "ant")
    assert read(part, "test") == [(0, 2), (1, 0), (2, 2)]
    rows(range(3), [0, 1, 0], ClassLabel(names=["ant", "bee"])).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        DatasetError, match=r"b\.parquet: row 1 has the label 'bee', which is none of the 3 classes of the training images"
    ):
        read(made(tmp_path / "a.parquet", test_path=str(tmp_path / "b.parquet")), "test")


ORDERS = (["cat", "dog", "ant"], ["ant", "cat", "dog"], ["dog", "bee"])


def animals(place, *orders) -> None:
    """Files of a dog each, whose classes are in different orders; None is for plain numbers, in the first order."""
    for number, order in enumerate(orders):
        label = (order or ORDERS[0]).index("dog")
        rows([number], [label], ClassLabel(names=order) if order else Value("int64")).to_parquet(place / f"{number}.parquet")


@pytest.mark.parametrize(
    "orders", [(ORDERS[0], ORDERS[1]), ORDERS, (ORDERS[1], ORDERS[0], ORDERS[1]), (None, ORDERS[0], ORDERS[1]), (ORDERS[0], None)]
)
def test_classes_of_the_files_of_a_split_are_those_of_the_same_names(tmp_path, orders):
    animals(tmp_path, *orders)
    part = made(tmp_path / "*.parquet", test="")
    dog = (orders[0] or ORDERS[0]).index("dog")
    assert read(part) == [(number, dog) for number in range(len(orders))]
    assert part.source("train").labels().tolist() == [dog] * len(orders)
    # Also where plain numbers come first, and a test table has an order of its own.
    rows([9], [2], ClassLabel(names=["ant", "cat", "dog"])).to_parquet(tmp_path / "test.pq.parquet")
    other = made(tmp_path / "[0-9]*.parquet", test_path=str(tmp_path / "test.pq.parquet"))
    assert read(other, "test") == [(9, dog)]


def test_a_class_that_the_first_file_does_not_have_is_told_with_its_file(tmp_path):
    animals(tmp_path, ORDERS[0], ORDERS[0], ORDERS[2])
    rows([3, 4], [0, 1], ClassLabel(names=ORDERS[2])).to_parquet(tmp_path / "2.parquet")
    with pytest.raises(DatasetError, match=r"2\.parquet: row 1 has the label 'bee', which is none of the 3 classes"):
        made(tmp_path / "*.parquet", test="").open("train")
