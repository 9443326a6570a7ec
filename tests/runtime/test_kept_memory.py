from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rarkit.runtime.kept_memory import kept_memory

MEASURED = """
import resource
import torch
from rarkit.runtime.kept_memory import kept_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    several = [torch.ones(2**24) for _ in range(4)]
    del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with kept_memory({device!r}):
    # How many it takes until the heap has room for all four is the allocator's affair.
    print(min(faults() for _ in range(10)))
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_memory_is_taken_from_the_system_once(device):
    """Each of four tensors has 16,384 pages of 4 KiB; with huge pages fewer."""
    code = MEASURED.format(device=device)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    within, after = map(int, done.stdout.split())
    assert (within < 20) == (device == "cpu")
    assert after > 100


def test_what_goes_wrong_within_is_told():
    with pytest.raises(ZeroDivisionError), kept_memory():
        raise ZeroDivisionError
