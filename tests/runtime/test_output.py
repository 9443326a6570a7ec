"""stdout is for results, whatever else is printed. What processes print is in tests/hostile/plugins.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rarkit.runtime.output import results, stdout_for_results


def test_what_is_printed_goes_to_stderr_and_results_to_stdout(capsys):
    with stdout_for_results():
        print("printed")
        with stdout_for_results():
            print("result", file=results())
    print("after")
    assert tuple(capsys.readouterr()) == ("result\nafter\n", "printed\n")


def test_it_ends_with_an_error_too(capsys):
    with pytest.raises(ValueError, match="a bug"), stdout_for_results():
        raise ValueError("a bug")
    print("after")
    assert results() is sys.stdout
    assert capsys.readouterr().out == "after\n"


def test_a_closed_stdout_stays_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with stdout_for_results():
        assert sys.stdout is None
        assert results() is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["plugins list", "plugins list --json", "schema", "run --help", "--version"])
def test_a_full_disk_behind_stdout_is_one_message(command):
    with open("/dev/full", "w") as full:
        run = [sys.executable, "-m", "rarkit", *command.split()]
        ended = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    message = "error: cannot write the result to stdout: No space left on device. Write it to another place.\n"
    assert (ended.returncode, ended.stderr) == (2, message)
