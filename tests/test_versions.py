"""The lowest versions that pyproject.toml allows are those that ``nox -s lowest`` installs."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# It needs a torch that fits its version and the system's CUDA, and is in no environment of the checks.
UNTRIED = {"xformers"}


def pinned(name: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(package): Version(version) for package, _, version in (line.partition("==") for line in lines)}


def requirements() -> dict[str, Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    return {text: Requirement(text) for texts in lists for text in texts}


@pytest.mark.parametrize("text", requirements())
def test_floors_are_the_versions_of_the_session_lowest(text):
    requirement = requirements()[text]
    name, lowest = canonicalize_name(requirement.name), pinned("constraints-lowest.txt")
    if name == "torch":
        assert lowest[name] == pinned("constraints.txt")[name]
    elif name not in UNTRIED:
        assert [lowest[name]] == [Version(bound.version) for bound in requirement.specifier if bound.operator == ">="]
