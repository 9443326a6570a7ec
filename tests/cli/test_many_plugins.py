"""Twenty plugins, five of them broken: the others work, and what needs no part waits for none of them."""

from __future__ import annotations

import json

import pytest

from tests import new_plugins
from tests.processes import call, rarkit_with


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder, site = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("site")
    return site, *new_plugins.many(folder, site)


def test_the_others_work(installed, tmp_path, digits_recipe):
    site, sound, broken = installed
    assert (len(sound), len(broken)) == (15, 5)
    ended = call(tmp_path, rarkit_with, str(site), {}, "plugins", "list", "--json")
    status = {plugin["plugin"]: plugin["status"] for plugin in json.loads(ended.stdout)["plugins"]}
    assert {name for name in status if status[name] == "loaded"} >= set(sound)
    assert {name for name in status if status[name] == "broken"} == set(broken)
    (tmp_path / "stdout").unlink()
    ended = call(tmp_path, rarkit_with, str(site), {}, "orders", "show", sound[-1], "--grid", "2x2", "--json")
    assert json.loads(ended.stdout)["order"] == [0, 2, 1, 3]


def test_help_loads_none_of_them(installed, tmp_path):
    site, *_ = installed
    marker = tmp_path / "loaded"
    # Each module notes that it is imported.
    for module in site.glob("rarkit_many_*/__init__.py"):
        module.write_text(f"open({str(marker)!r}, 'a').write(__name__)\n{module.read_text()}")
    ended = call(tmp_path, rarkit_with, str(site), {}, "--help")
    assert (ended.returncode, "plugins" in ended.stdout, marker.exists()) == (0, True, False)
    (tmp_path / "stdout").unlink()
    call(tmp_path, rarkit_with, str(site), {}, "plugins", "list")
    assert marker.exists()
