"""What a registered part is made of: its digest follows each change of it, and is the same without one."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections import namedtuple
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rarkit.errors import PluginError
from rarkit.registry.source_digest import source_digest

ORDER = """
import numpy as np
import rarkit
{head}

class Columns(rarkit.ScanOrder):
    '''Columns.'''

    def order(self, height, width):
        {use}
        return np.arange(height * width)
{tail}
"""


@dataclass
class Table:
    """An object whose ``repr`` does not show all of it."""

    cells: Any = field(repr=False, default=None)


class Silent:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return "Silent"


Pair = namedtuple("Pair", "first second")
Swapped = namedtuple("Pair", "second first")


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of ``Columns`` in ``own_main``, a module beside others of the author's, imported anew."""
    monkeypatch.syspath_prepend(tmp_path)

    def digest(use="pass", head="", tail="", files=None, **variables):
        main = ORDER.format(head=head, use=use, tail=tail)
        for name, text in {"own_main.py": main, **(files or {})}.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        for name in [name for name in sys.modules if name.startswith("own_")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        module = importlib.import_module("own_main")
        vars(module).update(variables)
        return source_digest(module.Columns)

    return digest


@pytest.mark.parametrize(
    ("head", "use"),
    [
        ("import own_a", "own_a.f()"),
        ("from own_a import f", "f()"),
        ("", "import own_a; own_a.f()"),
        ("", "from own_a import f; f()"),
        ("def g():\n    from own_a import f\n    return f()\n", "g()"),
        ("import own_package.inner", "own_package.inner.f()"),
        ("import own_package as p", "p.f()"),
        ("", "from own_package import inner"),
    ],
)
def test_modules_count_with_those_that_they_import(digest, head, use):
    def of(number):
        files = {
            "own_a.py": "from own_b import g\n\ndef f():\n    return g()\n",
            "own_b.py": f"def g():\n    return {number}\n",
            "own_package/__init__.py": "from .inner import f\n",
            "own_package/inner.py": "import own_b\n\ndef f():\n    return own_b.g()\n",
        }
        return digest(use, head, files=files)

    assert of(1) == of(1) != of(2)


def test_empty_packages_have_a_source_and_what_is_not_used_does_not_count(digest):
    files = {"own_package/__init__.py": "", "own_package/inner.py": "X = 1\n"}
    first = digest("own_package.inner.X", "import own_package.inner", files=files)
    files["own_package/other.py"] = "raise ImportError\n"
    assert digest("own_package.inner.X", "import own_package.inner", files=files) == first


def test_what_a_module_or_class_was_given_later_counts(digest):
    def of(number):
        return digest("own_a.X", "import own_a", f"own_a.X = {number}\n", {"own_a.py": "X = 0\n"})

    assert of(1) == of(1) != of(2)
    given = "def other(self, height, width):\n    return {} * np.arange(height * width)\n\nColumns.order = other\n"
    assert digest(tail=given.format(1)) == digest(tail=given.format(1)) != digest(tail=given.format(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: Table(n),
        lambda n: Table(np.append(np.zeros(2000), [n, *np.zeros(2000)])),
        lambda n: SimpleNamespace(x=np.array([0.1 + n * 1e-12])),
        lambda n: Silent(n),
        lambda n: re.compile("x" * 300 + str(n)),
        lambda n: np.array([None] * 2000 + [n] + [None] * 2000, dtype=object),
        lambda n: torch.full((2000,), float(n), dtype=torch.bfloat16),
        lambda n: torch.nn.Parameter(torch.full((3,), float(n))),
        lambda n: torch.nn.Flatten(n),
        lambda n: functools.partial(int, n),
        lambda n: (Pair, Swapped)[n](1, 2),
        lambda n: {"a": [n]},
    ],
)
def test_values_are_told_apart_by_all_that_is_in_them(digest, make):
    assert digest("X", X=make(1)) != digest("X", X=make(0))


def test_a_value_that_holds_itself_has_a_digest(digest):
    values: list[Any] = [1]
    values.append(values)
    assert digest("X", X=values) == digest("X", X=values) != digest("X", X=[1, 1])


def test_lambdas_within_longer_statements_have_a_source(digest):
    def of(number):
        return digest("T['a']()", f"T = {{\n    'a': lambda: {number},\n    'b': 1,\n}}\n")

    assert of(1) == of(1) != of(2)


@pytest.mark.parametrize("value", [object(), (i for i in range(3)), np.random.default_rng(0), SimpleNamespace(x=object())])
def test_what_cannot_be_told_apart_is_refused(digest, value):
    with pytest.raises(PluginError, match=r"X, which Columns uses, is .*cannot be told from others"):
        digest("X", X=value)
