"""Commands print whatever the encoding of the terminal."""

from __future__ import annotations

import io
import json
import sys
import tomllib
from pathlib import Path

import pytest

from rarkit.cli import encoding, main

TITLE = "Zähler → 数字 … \N{GREEK SMALL LETTER PI}"


@pytest.fixture
def recipe(digits_recipe, tmp_path):
    path = tmp_path / "naïve.toml"
    lines = Path(digits_recipe).read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(f'title = "{TITLE}"' if line.startswith("title") else line for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def printed(monkeypatch, tmp_path):
    """Runs a command whose stdout and stderr have an encoding; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(name, *arguments):
        streams = [io.TextIOWrapper(io.BytesIO(), encoding=name) for _ in range(2)]
        monkeypatch.setattr(sys, "stdout", streams[0])
        monkeypatch.setattr(sys, "stderr", streams[1])
        monkeypatch.setattr(sys, "argv", ["rarkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        for stream in streams:
            stream.flush()
        return stopped.value.code, *(stream.buffer.getvalue().decode(name) for stream in streams)

    return call


@pytest.mark.parametrize("name", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_command_prints(printed, recipe, name):
    for arguments in (
        ("--help",),
        ("run", "--help"),
        ("plan", recipe),
        ("run", recipe, "--dry-run"),
        ("validate", recipe),
        ("schema",),
        ("orders", "show", "spiral", "--grid", "3x3"),
        ("plugins", "list"),
    ):
        code, out, err = printed(name, *arguments)
        assert (code, "Traceback" in err) == (0, False), (arguments, err)
        assert out
    code, _, err = printed(name, "plan", recipe.with_name("→.toml"))
    assert (code, "there is no recipe" in err) == (2, True)


@pytest.mark.parametrize("name", ["ascii", "latin-1", "utf-8"])
def test_toml_and_json_lose_nothing(printed, recipe, name):
    assert tomllib.loads(printed(name, "validate", recipe)[1])["title"] == TITLE
    assert json.loads(printed(name, "validate", recipe, "--json")[1])["title"] == TITLE


def test_characters_are_replaced_by_what_looks_like_them(printed, recipe):
    assert "Zahler -> ?? ... ?" in printed("ascii", "plan", recipe)[1]
    assert "Zähler -> ?? ... ?" in printed("latin-1", "plan", recipe)[1]


def test_file_names_that_are_no_text_are_printed(printed):
    code, _, err = printed("utf-8", "plan", "no\udcfftext.toml")
    assert (code, r"no\udcfftext.toml" in err) == (2, True)


def test_can_print(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="latin-1"))
    assert (encoding.can_print("é"), encoding.can_print("→")) == (True, False)
