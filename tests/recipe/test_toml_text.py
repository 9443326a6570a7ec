"""The TOML of strangers: what is too large, too deep or no name of anything is refused before it costs time or memory."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit import load_recipe
from rarkit.errors import RecipeError
from rarkit.recipe.edits import override
from rarkit.recipe.toml_files import LONGEST_CHAIN
from rarkit.recipe.toml_text import DEEPEST, MOST_BYTES, parsed

TOO_DEEP = f"lie more than {DEEPEST} deep in each other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 1000 + "]" * 1000, TOO_DEEP),
        ("x = " + "[" * 100_000, TOO_DEEP),
        ("x = " + "{ a = " * 1000 + "1" + " }" * 1000, TOO_DEEP),
        ("x = " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), TOO_DEEP),
        ("[a.b.c.d.e]\nf.g.h.i.j = 1", TOO_DEEP),
        # The parser needs a minute and gigabytes for this.
        (f"title = 1\n{'a.' * 50_000}a = 1", r"r\.toml:2: a key has more than 8 parts\. Check where its dots come from\."),
        (f"[{'a.' * 9}a]", r"r\.toml:1: a key has more than 8 parts"),
        (f"x = {{ {'a . ' * 9}a = 1 }}", r"r\.toml:1: a key has more than 8 parts"),
        ('"a"' + ".'a'" * 9 + " = 1", r"r\.toml:1: a key has more than 8 parts"),
        (f"a = 1\nx = {'9' * 5000}", r"r\.toml:2: a whole number has more than 4,300 digits\. Write a smaller one\."),
        (f"[train]\nsteps = 0x{'f' * 5000}", r"r\.toml: train\.steps: found a whole number of 20,000 bits; numbers have 64 bits"),
        ("[train]\nsteps = 9223372036854775808", r"train\.steps: found 9223372036854775808; numbers have 64 bits"),
        ('[dataset]\npath = "a\\u0000b"', r"r\.toml: 'dataset\.path' has a NUL character, which no name has\. Remove it\."),
        ('x = "' + "y" * MOST_BYTES + '"', r"r\.toml has more than 1,048,576 bytes\. Is it a recipe\? Name the TOML file of one\."),
    ],
    ids=range(14),
)
def test_what_no_recipe_has(text, message):
    with pytest.raises(RecipeError, match=message):
        parsed(text, "r.toml")


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * (DEEPEST - 1) + "]" * (DEEPEST - 1),
        "a.b.c.d.e.f.g.h = 1",
        'x = "' + ".a" * 50 + '"  # ' + "b." * 50,
        "x = '" + ".a" * 50 + "'",
        'x = """\nA text. Of more. Sentences. Than a. Key has. Parts, so. That it. Taken for. One. Or not...........\n"""',
        "x = [" + "0.5, " * 50 + "]",
        "x = -9223372036854775808\ny = 9223372036854775807",
    ],
)
def test_what_a_recipe_may_have(text):
    parsed(text, "r.toml")


@given(st.recursive(st.integers(-5, 5), lambda inner: st.lists(inner, max_size=2), max_leaves=20))
def test_depth_is_counted(value):
    def depth(inner):
        return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0

    if depth(value) < DEEPEST:
        assert parsed(f"x = {value}", "r.toml") == {"x": value}
    else:
        with pytest.raises(RecipeError, match=TOO_DEEP):
            parsed(f"x = {value}", "r.toml")


def test_a_file_is_read_no_further_than_a_recipe_goes(tmp_path):
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(RecipeError, match=r"large\.toml has more than 1,048,576 bytes"):
        load_recipe(str(tmp_path / "large.toml"))


def test_a_chain_of_recipes_ends(tmp_path):
    for number in range(LONGEST_CHAIN + 1):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"\n')
    expected = rf"{re.escape(str(tmp_path))}/0\.toml: more than {LONGEST_CHAIN} recipes extend each other, .*{LONGEST_CHAIN}\.toml"
    with pytest.raises(RecipeError, match=expected):
        load_recipe(str(tmp_path / "0.toml"))


def test_overrides_are_parsed_likewise():
    with pytest.raises(RecipeError, match=f"--set a: tables or lists {TOO_DEEP}"):
        override({}, f"a={'[' * 1000}")


def test_recipes_in_an_archive_extend_those_beside_them(tmp_path, digits_recipe):
    import zipfile

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(digits_recipe, "some/base.toml")
        archive.writestr("some/mine.toml", 'extends = "base.toml"\ntitle = "Mine"\n')
    recipe = load_recipe(f"zip://some/mine.toml::{tmp_path}/all.zip")
    assert (recipe.title, recipe.dataset.name) == ("Mine", "digits")
