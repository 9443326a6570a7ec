"""A recipe takes a list of trackers: as TOML, as values of Python, and with what is wrong told by its line."""

from __future__ import annotations

import pickle
import tomllib

import pytest

import rarkit
from rarkit.errors import RecipeError
from rarkit.recipe.text import to_toml
from rarkit.registry.kinds import KINDS, TABLES, kind_at
from rarkit.trackers.tensorboard import TensorBoard

SMALL = {"hidden_size": 8, "depth": 1, "num_heads": 2}
TEXT = """\
title = "Tracked"
dataset.name = "digits"
tokenizer.name = "pixel"
model = { hidden_size = 8, depth = 1, num_heads = 2 }
train = { steps = 4, batch_size = 2 }

[[trackers]]
name = "tensorboard"
flush_seconds = 3
"""


def made(trackers):
    train = {"steps": 4, "batch_size": 2}
    return rarkit.make_recipe(dataset="digits", tokenizer="pixel", model=SMALL, train=train, trackers=trackers)


@pytest.mark.parametrize("tracker", ["tensorboard", {"name": "tensorboard"}, TensorBoard(), TensorBoard])
def test_they_are_given_in_python_as_other_parts_are(tracker):
    recipe = made([tracker])
    assert recipe.trackers == (TensorBoard(),)
    assert made([]).trackers == recipe.replace({"trackers": None}).trackers == ()
    assert made([]).replace({"trackers": [tracker]}).trackers == pickle.loads(pickle.dumps(recipe)).trackers == recipe.trackers


def test_they_are_written_as_they_are_read(tmp_path):
    (tmp_path / "recipe.toml").write_text(TEXT)
    recipe = rarkit.load_recipe(tmp_path / "recipe.toml")
    assert recipe.trackers == (TensorBoard(flush_seconds=3),)
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    assert rarkit.load_recipe(tmp_path / "again.toml").trackers == recipe.trackers
    assert tomllib.loads(to_toml(made([])))["trackers"] == []


def test_a_recipe_on_top_replaces_the_list_or_drops_it(tmp_path):
    (tmp_path / "base.toml").write_text(TEXT)
    for own, seconds in (
        ("", [3]),
        ('[[trackers]]\nname = "tensorboard"\n', [10]),
        ("trackers = []\n", []),
        ('unset = ["trackers"]\n', []),
    ):
        (tmp_path / "recipe.toml").write_text(f'extends = "base.toml"\n{own}')
        assert [tracker.flush_seconds for tracker in rarkit.load_recipe(tmp_path / "recipe.toml").trackers] == seconds


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("flush_secs = 1", r"recipe\.toml:10: trackers\.0\.flush_secs: no such key; did you mean 'flush_seconds'\?"),
        (
            '[[trackers]]\nname = "tensorbord"',
            r"recipe\.toml:11: trackers\.1\.name: no tracker is called 'tensorbord'; did you mean",
        ),
        ("[[trackers]]", r"recipe\.toml: trackers\.1\.name: missing\. Choose one of: "),
        ('[[trackers]]\nname = "tensorboard"', r"recipe\.toml: \[\[trackers\]\] names 'tensorboard' twice: name it once"),
        ('[[trackers]]\nname = "tensorboard"\nflush_seconds = 0', r"recipe\.toml:12: trackers\.1\.flush_seconds: found 0"),
    ],
)
def test_mistakes_have_their_line(tmp_path, more, message):
    (tmp_path / "recipe.toml").write_text(f"{TEXT}{more}\n")
    with pytest.raises(RecipeError, match=message):
        rarkit.load_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize("change", ["trackers=tensorboard", "trackers.name=tensorboard", "trackers=3"])
def test_what_is_no_list_is_told_how_to_write_one(digits_recipe, change):
    listed = (
        r'trackers: found .*; expected a list of tables: \[\[trackers\]\] above each, or trackers = \[\{name = "tensorboard"\}\]'
    )
    with pytest.raises(RecipeError, match=listed):
        rarkit.load_recipe(digits_recipe, [change])
    with pytest.raises(RecipeError, match=r"trackers\.0: found 'a'; expected a table: set its keys, name = \"a\" for instance"):
        rarkit.load_recipe(digits_recipe, ['trackers=["a"]'])


def test_a_part_of_a_list_has_a_place_of_its_own():
    assert kind_at("trackers.1") is KINDS["trackers"]
    assert [kind_at(path) for path in ("trackers", "trackers.x", "scan_order.0", "sample.classes.0", "")] == [None] * 5
    assert all(kind_at(table) is kind for table, kind in TABLES.items() if not kind.many)
