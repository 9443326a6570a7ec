"""``rarkit parts`` and ``rarkit schedules``, and the curve that the latter prints."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit as package
from rarkit.registry.kinds import KINDS
from rarkit.rendering.curve_text import COLUMNS, EIGHTHS, ROWS, curve_text


def test_parts_lists_them_all(rarkit):
    rows = json.loads(rarkit("parts", "--json")[1])
    installed = package.parts()
    assert [(row["kind"], row["name"]) for row in rows] == [(kind, name) for kind in KINDS for name in installed.of_kind(kind)]
    assert all(row["about"] for row in rows)
    assert {row["table"] for row in rows} == {kind.table for kind in KINDS.values()}


def test_parts_of_one_kind(rarkit):
    code, out, _ = rarkit("parts", "scan-order")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("scan_order")] == list(package.parts().scan_orders)
    code, _, err = rarkit("parts", "scan_ordr")
    assert (code, "did you mean 'scan_order'?" in err) == (2, True)


def test_schedules_show(rarkit):
    shown = json.loads(
        rarkit("schedules", "show", "linear", "--steps", "4", "--set", "start=0.25", "--set", "end=0.75", "--json")[1]
    )
    assert shown == {"step": [0, 1, 2, 3, 4], "random_ratio": [1.0, 1.0, 0.5, 0.0, 0.0]}
    code, out, _ = rarkit("schedules", "show", "constant", "--steps", "7")
    assert code == 0
    assert out.splitlines()[:ROWS] == [f"{label}{'█' * COLUMNS}" for label in ("1 ┤", *["  │"] * (ROWS - 2), "0 ┤")]
    assert out.splitlines()[-1] == "   0 … 7 steps"


def test_a_long_training_is_looked_at_in_a_thousand_places(rarkit):
    shown = json.loads(rarkit("schedules", "show", "cosine", "--steps", "250000", "--json")[1])
    schedule = package.parts().permutation_schedules["cosine"]()
    assert len(shown["step"]) == 1001
    assert (shown["step"][0], shown["step"][-1]) == (0, 250_000)
    assert shown["random_ratio"] == [schedule.random_ratio(step, 250_000) for step in shown["step"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["linnear"], "did you mean 'linear'?"),
        (["linear", "--set", "start=3"], "error: permutation schedule 'linear': start = 3 and end = 0.75"),
        (["linear", "--set", "x=3"], "x: no such key"),
        (["linear", "--steps", "0"], "--steps"),
    ],
)
def test_mistakes(rarkit, arguments, words):
    code, _, err = rarkit("schedules", "show", *arguments)
    assert (code, words in err) == (2, True), err


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(2, 9), st.integers(2, 40))
def test_a_curve_is_as_high_as_its_values(values, rows, columns):
    *area, axis, caption = curve_text(values, "below", rows=rows, columns=columns).splitlines()
    assert (len(area), axis, caption) == (rows, "  └" + "─" * columns, "   below")
    for column in range(columns):
        filled = sum(EIGHTHS.index(line.ljust(3 + columns)[3 + column]) for line in area)
        value = values[round(column * (len(values) - 1) / (columns - 1))]
        assert abs(filled - 8 * rows * value) <= 0.5
