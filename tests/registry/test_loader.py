"""Plugins: loaded one by one, checked, chosen, and never able to take each other down."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import types
import warnings
from importlib.metadata import EntryPoint, PathDistribution
from typing import Literal

import numpy as np
import pytest

import rarkit
from rarkit import ScanOrder, hookimpl
from rarkit.errors import PluginError, RarkitWarning, UnknownPartError
from rarkit.registry import loader
from rarkit.registry.kinds import KINDS


class Reversed(ScanOrder):
    """Raster, backwards."""

    name: Literal["reversed"] = "reversed"

    def order(self, height, width):
        return np.arange(height * width)[::-1].copy()


class Unlike(Reversed):
    """Its name is not what its type says."""

    name: str = "reversed"


class Unfinished(Reversed):
    """Has a setting of no type."""

    name: Literal["unfinished"] = "unfinished"
    setting: "Nowhere" = 1  # noqa: F821, UP037


class Unspeakable(BaseException):
    def __str__(self):
        raise SystemExit(0)


def calls_itself():
    return calls_itself()


def module(name, **hooks):
    """A module with hook implementations, importable by name."""
    made = types.ModuleType(name)
    for hook, returns in hooks.items():

        def implementation(returns=returns):
            if isinstance(returns, BaseException):
                raise returns
            return returns() if isinstance(returns, types.FunctionType) else returns

        implementation.__name__ = hook
        # pluggy hands over only the arguments that a hook's specification has, and this one has none.
        setattr(made, hook, hookimpl(lambda implementation=implementation: implementation()))
    sys.modules[name] = made
    return EntryPoint(name.removeprefix("fake_"), name, "rarkit")


BUILTIN = EntryPoint("builtin", "rarkit.builtin", "rarkit")


def only_record(loaded, plugin):
    return next(record for record in loaded.records if record.source.plugin == plugin)


def test_builtin_parts_come_through_the_entry_point():
    parts = loader.installed().parts()
    assert parts.scan_orders.source("raster").distribution == "rarkit"
    assert all(len(parts.of_kind(kind)) >= 1 for kind in KINDS)


def test_a_plugin_brings_its_part():
    loaded = loader.load([BUILTIN, module("fake_good", rarkit_scan_orders=[Reversed])])
    assert loaded.parts().scan_orders["reversed"] is Reversed
    assert only_record(loaded, "good").status == "loaded"


@pytest.mark.parametrize(
    ("hooks", "cause"),
    [
        ({"rarkit_scan_orders": ValueError("boom")}, "ValueError: boom"),
        ({"rarkit_scan_order": [Reversed]}, "rarkit_scan_order"),
        ({"rarkit_tokenizers": [Reversed]}, "scan_orders"),
        ({"rarkit_scan_orders": [Reversed()]}, "list of classes"),
        ({"rarkit_scan_orders": [ScanOrder]}, "leaves methods undefined: order"),
        ({"rarkit_scan_orders": SystemExit(0)}, "SystemExit: 0"),
        ({"rarkit_scan_orders": KeyboardInterrupt()}, "KeyboardInterrupt"),
        ({"rarkit_scan_orders": GeneratorExit("gone")}, "GeneratorExit: gone"),
        ({"rarkit_scan_orders": lambda: calls_itself()}, "RecursionError: maximum recursion depth exceeded"),
        ({"rarkit_scan_orders": Unspeakable()}, "Unspeakable: its message raises SystemExit"),
        ({"rarkit_scan_orders": ValueError("a\n" * 10_000)}, "ValueError: a a a"),
        ({"rarkit_scan_orders": 42}, "must return a list of classes, not int"),
        ({"rarkit_scan_orders": lambda: itertools.repeat(Reversed)}, "must return a list of classes, not repeat"),
        ({"rarkit_scan_orders": {"reversed": Reversed}}, "must return a list of classes, not dict"),
        ({"rarkit_scan_orders": [Unlike]}, "Unlike has no name; write name: Literal"),
        ({"rarkit_scan_orders": [Unfinished]}, "Nowhere"),
    ],
)
def test_a_broken_plugin_is_named_and_harms_nobody(hooks, cause):
    loaded = loader.load([BUILTIN, module("fake_bad", **hooks), module("fake_good", rarkit_scan_orders=[Reversed])])
    record = only_record(loaded, "bad")
    assert record.status == "broken"
    assert cause in record.cause
    assert len(record.cause) < 600
    parts = loaded.parts()
    assert "reversed" in parts.scan_orders
    assert "raster" in parts.scan_orders
    with pytest.raises(UnknownPartError, match=r"Plugin 'bad' of .* failed to load"):
        parts.scan_orders["nowhere"]
    with pytest.raises(PluginError, match="'bad'"):
        loaded.parts(strict=True)


def test_an_import_error_is_a_broken_plugin():
    loaded = loader.load([EntryPoint("gone", "no_such_module_anywhere", "rarkit")])
    assert "ModuleNotFoundError" in only_record(loaded, "gone").cause


def test_two_parts_with_one_name_are_an_error_that_names_both():
    loaded = loader.load([module("fake_one", rarkit_scan_orders=[Reversed]), module("fake_two", rarkit_scan_orders=[Reversed])])
    with pytest.raises(PluginError, match=r"(?s)fake_one.*fake_two.*'reversed'.*RARKIT_BLOCK_PLUGINS"):
        loaded.parts()
    blocked = loader.load(
        [module("fake_one", rarkit_scan_orders=[Reversed]), module("fake_two", rarkit_scan_orders=[Reversed])], block="two"
    )
    assert "reversed" in blocked.parts().scan_orders
    assert only_record(blocked, "two").status == "blocked"


def test_only_and_block_choose():
    points = [BUILTIN, module("fake_good", rarkit_scan_orders=[Reversed])]
    assert "reversed" not in loader.load(points, only="").parts().scan_orders
    assert "reversed" in loader.load(points, only="good").parts().scan_orders
    assert len(loader.load(points, block="builtin,good").parts().scan_orders) == 0
    for variable in ({"only": "goood"}, {"block": "goood"}):
        with pytest.raises(PluginError, match=r"'goood', which is not an installed plugin\. Installed: builtin, good"):
            loader.load(points, **variable)


def test_unknown_names_get_suggestions_and_install_hints():
    parts = loader.load([BUILTIN]).parts()
    with pytest.raises(UnknownPartError, match=r"no scan order is called 'spirall'; did you mean 'spiral'\?"):
        parts.scan_orders["spirall"]
    with pytest.raises(UnknownPartError, match=r"'columns'\. Installed: .* One of your own: rarkit\.register it"):
        parts.scan_orders["columns"]
    hint = r"no scan order is called 'hilbert'\. Installed: .* pip install \./plugins/rarkit-hilbert, in a checkout of rarkit\."
    with pytest.raises(UnknownPartError, match=hint):
        parts.scan_orders["hilbert"]
    assert parts.scan_orders.get("spirall") is None
    assert "spirall" not in parts.scan_orders


def test_what_a_plugin_changes_of_the_process_is_put_back(tmp_path, monkeypatch):
    def changes():
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        return [Reversed]

    monkeypatch.chdir(tmp_path.parent)
    before = signal.getsignal(signal.SIGINT)
    assert only_record(loader.load([module("fake_changes", rarkit_scan_orders=changes)]), "changes").status == "loaded"
    assert os.getcwd() == str(tmp_path.parent)
    assert signal.getsignal(signal.SIGINT) == before


def raises():
    os.kill(os.getpid(), signal.SIGINT)
    return [Reversed]


def swallows():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        return [Reversed]


def turns_it_into_another():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException as error:
        raise ImportError from error


@pytest.mark.parametrize("hook", [raises, swallows, turns_it_into_another])
def test_a_users_interrupt_is_no_broken_plugin(hook):
    with pytest.raises(KeyboardInterrupt):
        loader.load([module("fake_interrupted", rarkit_scan_orders=hook)])


def test_a_handler_that_goes_on_lets_the_plugin_go_on():
    arrived = []
    before = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        loaded = loader.load([module("fake_interrupted", rarkit_scan_orders=raises)])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (arrived, only_record(loaded, "interrupted").status) == ([signal.SIGINT], "loaded")


def test_a_plugin_that_takes_long_is_named(monkeypatch):
    warned, said = threading.Event(), []

    def waits():
        assert warned.wait(60)
        return [Reversed]

    def note(message, *about, **more):
        said.append(message)
        warned.set()

    monkeypatch.setattr(loader, "SLOW_SECONDS", 0.01)
    with warnings.catch_warnings(action="always"):
        monkeypatch.setattr(warnings, "showwarning", note)
        loaded = loader.load([module("fake_slow", rarkit_scan_orders=waits)])
    assert only_record(loaded, "slow").status == "loaded"
    assert isinstance(said[0], RarkitWarning)
    assert "plugin 'slow' of fake_slow is still being loaded" in str(said[0])
    assert "RARKIT_BLOCK_PLUGINS=slow leaves it out" in str(said[0])


def with_versions(name, versions):
    point = module(name, rarkit_scan_orders=[Reversed])
    sys.modules[name].requires_rarkit = versions
    return point


@pytest.mark.parametrize("versions", [f"=={rarkit.__version__}", f">={rarkit.__version__}", ">=0.0.1,<1000", ""])
def test_a_plugin_for_this_rarkit_loads(versions):
    record = only_record(loader.load([with_versions("fake_fits", versions)]), "fits")
    assert (record.status, record.requires_rarkit) == ("loaded", versions)
    assert record.seconds > 0


@pytest.mark.parametrize(
    ("versions", "cause"),
    [
        (">=1000", f"it was written for rarkit >=1000, and this is rarkit {rarkit.__version__}. Install another"),
        ("<0.0.1", "it was written for rarkit <0.0.1"),
        ("0.1", "requires_rarkit = '0.1' names no versions; write them as in"),
        ("of today", "names no versions"),
        (0.1, "requires_rarkit is 0.1; write the versions as text"),
    ],
)
def test_a_plugin_for_another_rarkit_is_broken_with_both_versions(versions, cause):
    record = only_record(loader.load([with_versions("fake_misfit", versions)]), "misfit")
    assert record.status == "broken"
    assert cause in record.cause


def test_what_the_distribution_requires_counts_before_it_is_imported(tmp_path, monkeypatch):
    """A plugin for another rarkit may import what this one lacks; the versions say more than that error."""
    (tmp_path / "for_later.py").write_text("from rarkit import WhatComesLater")
    info = tmp_path / "for_later-1.0.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", "Name: for-later", "Version: 1.0", "Requires-Dist: numpy", "Requires-Dist: rarkit-more"]
    lines += ["Requires-Dist: rarkit==0.0; extra == 'old'", "Requires-Dist: rarkit<2000,>=1000"]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text("[rarkit]\nfor_later = for_later\n")
    [point] = PathDistribution(info).entry_points
    record = only_record(loader.load([point]), "for_later")
    assert record.status == "broken"
    assert record.cause.startswith("PluginError: it was written for rarkit <2000,>=1000")
    assert record.requires_rarkit == "<2000,>=1000"


def test_rarkits_own_parts_are_not_to_be_left_out(monkeypatch):
    said = []
    monkeypatch.setattr(loader, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(loader.threading, "Timer", lambda seconds, function, arguments: Now(said, arguments))
    loader.load([BUILTIN])
    assert "They are rarkit's own parts" in said[0]
    assert "RARKIT_BLOCK_PLUGINS" not in said[0]


class Now:
    """A timer that keeps what it would have said."""

    def __init__(self, said, arguments):
        said.append(arguments[0])

    def start(self): ...

    def cancel(self): ...

    def join(self): ...
