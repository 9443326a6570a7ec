"""What a process takes that loads a model: memory, and libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from rarkit.models import RAR, RARConfig, save_rar
from tests.models.rar.small import lively

LOADED = [(".bin", None), (".safetensors", None), (".bin", torch.bfloat16)]
FRESH = """
import json, os, sys
import torch
from rarkit.models import RARConfig, load_rar
from rarkit.sampling import generate

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

growths = []
for path, dtype in json.loads(sys.argv[3]) if sys.platform == "linux" else ():
    # A peak each: that of a forked process begins with what is resident then.
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(growth(path, dtype and getattr(torch, dtype))).encode())
        os._exit(0)
    assert os.wait()[1] == 0
    growths.append(int(os.read(read, 100)))
generate(load_rar(f"{folder}/tiny.safetensors").prepare(compiled=False), [0, 1], order=range(12))
print(json.dumps({"growths": growths, "compiler": "torch._dynamo" in sys.modules}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """What a process of its own tells that loads models; and what it loaded, with the dtypes."""
    folder = tmp_path_factory.mktemp("models")
    config = RARConfig(hidden_size=1024, depth=3, num_heads=16, mlp_hidden_size=4096, seq_len=16, codebook_size=64, num_classes=10)
    save_rar(lively(), folder / "tiny.safetensors")
    for suffix in (".bin", ".safetensors"):
        save_rar(RAR(config, seed=None), folder / f"model{suffix}")
    cases = [(str(folder / f"model{suffix}"), dtype and str(dtype).removeprefix("torch.")) for suffix, dtype in LOADED]
    command = [sys.executable, "-c", FRESH, str(folder), config.model_dump_json(), json.dumps(cases)]
    # One thread: forked processes have none of OpenMP's others.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout), cases


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_takes_the_memory_of_the_file(fresh):
    """Peak resident memory (VmHWM: own pages and mapped ones) grows by at most 1.3 × the file, all weights touched."""
    told, cases = fresh
    for (path, dtype), growth in zip(cases, told["growths"], strict=True):
        size = os.path.getsize(path)
        assert size > 190e6
        assert (0.9 if dtype is None else 0.45) * size < growth < 1.3 * size, (path, dtype)


def test_loading_and_sampling_leave_torchs_compiler_alone(fresh):
    """It takes seconds to import."""
    assert not fresh[0]["compiler"]
