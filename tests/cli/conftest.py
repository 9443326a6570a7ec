"""The fixture that tests of commands share."""

from __future__ import annotations

import sys

import pytest

from rarkit.cli import main


@pytest.fixture
def rarkit(capsys, monkeypatch, tmp_path):
    """Runs a command in this process, in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rarkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return call
