"""A proposed recipe as TOML, with a comment on each line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import tomli_w

from rarkit.printable import printable, printable_strings
from rarkit.proposal.choice import Choice
from rarkit.proposal.places import is_on_hub
from rarkit.proposal.proposal import SEED, Proposal
from rarkit.registry.component import each_path

LONGEST = 132
"""Characters of a line; a longer comment stands above its setting."""
PLACES = ("path", "test_path", "urls", "test_urls")
"""Settings of datasets that are paths, relative to the recipe."""


def recipe_text(proposal: Proposal, head: Sequence[str], folder: Path) -> str:
    """The recipe.

    Args:
        proposal: what was chosen.
        head: sentences for the top.
        folder: where the recipe will lie.
    """
    lines = [f"# {line}" for sentence in head for line in wrap(printable(sentence), LONGEST - 2)]
    lines += [f"title = {value_text(proposal.title)}", f"seed = {SEED}"]
    for name, choices in proposal.tables.items():
        lines += ["", f"[{name}]"]
        for choice in choices:
            is_place = name == "dataset" and choice.key in PLACES
            lines += _setting(choice._replace(value=_from(folder, choice.value)) if is_place else choice)
    return printable_strings("\n".join(lines) + "\n")


def _setting(choice: Choice) -> list[str]:
    setting, why = f"{choice.key} = {value_text(choice.value)}", printable(choice.why)
    if not why:
        return [setting]
    line = f"{setting:<24}# {why}" if len(setting) < 24 else f"{setting} # {why}"
    if len(line) <= LONGEST:
        return [line]
    return [*(f"# {part}" for part in wrap(why, LONGEST - 2)), setting]


def value_text(value: Any) -> str:
    """A value as TOML in a line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {value_text(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(value_text, value)) + "]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def _from(folder: Path, place: str) -> str:
    """A place whose local paths are as seen from the recipe's folder if they lie below it, so that both can be moved.

    Names on a hub stay as they are.
    """
    if is_on_hub(place):
        return place

    def seen(path: str) -> str:
        absolute = os.path.abspath(os.path.expanduser(path))
        below = os.path.relpath(absolute, folder.resolve())
        return absolute if below.startswith(os.pardir) else below

    return each_path(place, seen)
