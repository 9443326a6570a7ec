"""What the terminal shows of metrics."""

from __future__ import annotations

import pytest

from rarkit.evaluation.record import MetricRecord
from rarkit.report.terminal import metrics_table
from rarkit.runtime.console import PrintableConsole


@pytest.fixture
def printed(capsys, monkeypatch):
    def call(renderable):
        monkeypatch.setenv("COLUMNS", "200")
        PrintableConsole().print(renderable)
        return capsys.readouterr().out

    return call


def test_metrics_are_shown_with_interval_and_yardsticks(printed):
    metrics = [
        MetricRecord(
            "frechet_distance",
            5.96065,
            4.9517,
            6.99391,
            "",
            "lower",
            "…",
            {"real [b]test[/b] images": 2.4029, "uniform": 163.8066},
        ),
        MetricRecord("psnr [dim]", 26.2357, unit="dB", better="higher"),
    ]
    first, second = printed(metrics_table(metrics)).splitlines()[1:]
    for word in ("frechet_distance ↓", "5.961", "4.952 … 6.994", "real [b]test[/b] images 2.403", "uniform 163.8"):
        assert word in first
    for word in ("psnr [dim] ↑", "26.24 dB"):
        assert word in second


def test_names_are_whole_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    beside = {"training images": 1.622, "real test images": 2.4029, "uniform tokens": 163.8066}
    name = "reconstruction_frechet_distance"
    PrintableConsole().print(metrics_table([MetricRecord(name, 5.96065, 4.9517, 6.99391, "", "lower", "…", beside)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{name} ↓ ")
    assert len(lines) > 2
    assert max(map(len, lines)) <= 80


def test_what_there_is_to_remark_stands_below(printed):
    likelihood = MetricRecord("bits_per_token", 2.508, unit="bits", better="lower", yardsticks={"training images": 1.622})
    lines = printed(metrics_table([likelihood])).splitlines()
    assert lines[2].startswith("Training and held-out likelihood diverge")
    assert "likelihood part" not in printed(metrics_table([MetricRecord("recall", 0.9)]))
