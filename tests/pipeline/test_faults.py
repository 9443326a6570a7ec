"""File operations that fail: one message, nothing half-written counts, the next run ends with the same bits."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/faults.py"


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_a_few_of_the_faults_of_the_script(tmp_path):
    """Errors of opening files, to read and to write; the script has all kinds, and hundreds of cases."""
    done = subprocess.run([sys.executable, SCRIPT, "--cases", "4", "--seed", "5"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("4 faults: ")
    assert "'one message': " in done.stdout
