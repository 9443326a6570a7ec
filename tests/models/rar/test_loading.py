"""What a process takes that loads a model: memory, and libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from rarkit.models import RAR, RARConfig, save_rar
from tests.models.rar.small import lively

LOADED = [(".bin", None), (".safetensors", None), (".bin", torch.bfloat16)]
FRESH = """
import json, os, sys
import torch
from rarkit.models import RARConfig, load_rar

folder, config = sys.argv[1], RARConfig.model_validate_json(sys.argv[2])

def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def growth(path, dtype):
    load_rar(f"{folder}/tiny.safetensors", dtype=dtype)
    before = peak()
    model = load_rar(path, config, dtype=dtype)
    for weight in model.parameters():
        weight.detach().view(-1)[::256].sum()
    return peak() - before

for path, dtype in json.loads(sys.argv[3]):
    # A peak each: that of a forked process begins with what is resident then.
    if os.fork() == 0:
        print(growth(path, dtype and getattr(torch, dtype)), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_the_memory_of_the_file(tmp_path):
    """Peak resident memory (VmHWM: own pages and mapped ones) grows by at most 1.3 × the file, all weights touched."""
    config = RARConfig(hidden_size=1024, depth=3, num_heads=16, mlp_hidden_size=4096, seq_len=16, codebook_size=64, num_classes=10)
    save_rar(lively(), tmp_path / "tiny.safetensors")
    for suffix in (".bin", ".safetensors"):
        save_rar(RAR(config, seed=None), tmp_path / f"model{suffix}")
    cases = [(str(tmp_path / f"model{suffix}"), dtype and str(dtype).removeprefix("torch.")) for suffix, dtype in LOADED]
    command = [sys.executable, "-c", FRESH, str(tmp_path), config.model_dump_json(), json.dumps(cases)]
    # One thread: forked processes have none of OpenMP's others.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    for (path, dtype), growth in zip(cases, map(int, run.stdout.split()), strict=True):
        size = os.path.getsize(path)
        assert size > 190e6
        assert (0.9 if dtype is None else 0.45) * size < growth < 1.3 * size, (path, dtype)


def test_loading_and_sampling_leave_torchs_compiler_alone(tmp_path):
    """It takes seconds to import."""
    save_rar(lively(), tmp_path / "model.safetensors")
    code = """
        import sys
        from rarkit.models import load_rar
        from rarkit.sampling import generate
        generate(load_rar(sys.argv[1]).prepare(compiled=False), [0, 1], order=range(12))
        assert "torch._dynamo" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path / "model.safetensors"], check=True)
