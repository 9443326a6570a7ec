"""What is found without reading: names that complete, and modules that need no import of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rarkit
import rarkit.models
import rarkit.sampling
from tests.rules import PUBLIC_MODULES


@pytest.mark.parametrize("package", [rarkit, rarkit.models, rarkit.sampling], ids=lambda package: package.__name__)
def test_dir_lists_public_names_alone(package):
    modules = {name.removeprefix("rarkit.") for name in PUBLIC_MODULES} if package is rarkit else set()
    assert dir(package) == sorted({*package.__all__, *modules})
    assert all(hasattr(package, name) for name in dir(package))


def test_public_modules_need_no_import_of_their_own():
    names = sorted(name.removeprefix("rarkit.") for name in PUBLIC_MODULES)
    lines = ["import rarkit, sys", "assert not {'rarkit.models', 'rarkit.sampling', 'torch'} & set(sys.modules)"]
    lines += [f"assert rarkit.{name}.__name__ == 'rarkit.{name}'" for name in names]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'smapling'"):
        _ = rarkit.smapling


def test_names_of_parts_complete_in_ipython():
    orders = rarkit.parts().scan_orders
    assert orders._ipython_key_completions_() == list(orders)
    assert "spiral" in orders._ipython_key_completions_()
