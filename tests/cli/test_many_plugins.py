"""Twenty plugins, five of them broken: the others work, and what needs no part waits for none of them."""

from __future__ import annotations

import json

import pytest

from tests import new_plugins
from tests.processes import call, rarkit_with
from tests.rules import ROOT

SMALL = ROOT / "tests/data/small.toml"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder, site = tmp_path_factory.mktemp("many"), tmp_path_factory.mktemp("site")
    return site, *new_plugins.many(folder, site)


def test_the_others_work(installed, tmp_path):
    site, sound, broken = installed
    assert (len(sound), len(broken)) == (15, 5)
    ended = call(tmp_path, rarkit_with, str(site), {}, "plugins", "list", "--json")
    status = {plugin["plugin"]: plugin["status"] for plugin in json.loads(ended.stdout)["plugins"]}
    assert {name for name in status if status[name] == "loaded"} >= set(sound)
    assert {name for name in status if status[name] == "broken"} == set(broken)
    (tmp_path / "stdout").unlink()
    ended = call(tmp_path, new_plugins.print_orders, str(site), sound)
    assert json.loads(ended.stdout) == {name: [0, 2, 1, 3] for name in sound}


def test_the_five_are_named(installed, tmp_path):
    """Where a part is not there, and if no plugin may be broken."""
    site, sound, broken = installed
    for number, options in enumerate((["order_of_none"], [sound[0], "--strict-plugins"], [sound[0]])):
        order, *strict = options
        folder = tmp_path / str(number)
        folder.mkdir()
        setting = f'scan_order={{name="{order}"}}'
        ended = call(folder, rarkit_with, str(site), {}, "validate", SMALL, "--set", setting, *strict)
        named = [name for name in broken if f"'{name}'" in ended.stderr]
        assert (ended.returncode, named) == ((0, []) if options == [sound[0]] else (2, broken)), ended.stderr


def test_the_name_of_a_part_for_that_of_its_plugin(installed, tmp_path):
    site, *_ = installed
    ended = call(tmp_path, rarkit_with, str(site), {}, "plugins", "show", "raster")
    assert ended.returncode == 2
    assert "there is no plugin 'raster'" in ended.stderr
    assert "But there is the scan order 'raster' of rarkit " in ended.stderr


def test_help_loads_none_of_them(installed, tmp_path):
    site, *_ = installed
    marker = tmp_path / "loaded"
    # Each module notes that it is imported.
    for module in site.glob("rarkit_many_*/__init__.py"):
        module.write_text(f"open({str(marker)!r}, 'a').write(__name__)\n{module.read_text()}")
    for arguments in (["--help"], ["--version"], ["run", "--help"], ["plugins", "new", "--help"]):
        ended = call(tmp_path, rarkit_with, str(site), {}, *arguments)
        assert (ended.returncode, bool(ended.stdout), marker.exists()) == (0, True, False)
        (tmp_path / "stdout").unlink()
    call(tmp_path, rarkit_with, str(site), {}, "plugins", "list")
    assert marker.exists()
