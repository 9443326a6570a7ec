"""What a checkpoint costs: how long training waits for it, how long it takes, and the memory of the device and the host.

    python benchmarks/checkpoints.py [cpu|cuda] [millions of parameters] [folder]

The state is that of a model with AdamW in float32: weights and two moments, in matrices of 1024 × 1024. On CUDA the first save pins
the host's copy, and the second uses it again. Beside it: the time that plain writing and hashing of as many bytes takes.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from rarkit.cache.store import Store
from rarkit.engine.checkpoints import Checkpoints
from rarkit.files.atomic import rewriting
from rarkit.runtime.ranks import ALONE


def main(device: str = "cpu", millions: str = "100", folder: str = "") -> None:
    """Prints a line for each measurement."""
    shape = 1024, 1024
    names = [f"{kind}/model/{number}" for kind in ("networks", "exp_avg", "exp_avg_sq") for number in range(int(millions))]
    state = {name: torch.full(shape, 0.5, device=device) for name in names}
    size = sum(tensor.nbytes for tensor in state.values())
    print(f"{size / 1e9:.2f} GB on {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU'}")
    with tempfile.TemporaryDirectory(dir=folder or None) as place:
        _plain(Path(place), size)
        output = Store(place).output("train", "benchmark")
        with output.writing({}), Checkpoints(output, ALONE) as checkpoints:
            for step in (1, 2):
                _saved(checkpoints, step, state, device)
            into = {name: torch.zeros_like(tensor).fill_(1.0) for name, tensor in state.items()}
            before, began = _peak(), time.perf_counter()
            Checkpoints(output, ALONE).load(2, into)
            print(f"verify and load: {time.perf_counter() - began:.2f} s, host + {(_peak() - before) / 1e9:.3f} GB")
            assert all(torch.equal(into[name], tensor) for name, tensor in state.items())


def _plain(place: Path, size: int) -> None:
    portion, began, digest = bytes(2**22), time.perf_counter(), hashlib.sha256()
    with rewriting(place / "plain") as file:
        for _ in range(0, size, len(portion)):
            digest.update(portion)
            file.write(portion)
    print(f"plain: {time.perf_counter() - began:.2f} s to hash and write")
    (place / "plain").unlink()


def _saved(checkpoints: Checkpoints, step: int, state: dict[str, torch.Tensor], device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    before, began = _peak(), time.perf_counter()
    checkpoints.save(step, state, {})
    waited = time.perf_counter() - began
    checkpoints.wait()
    took, host = time.perf_counter() - began, (_peak() - before) / 1e9
    on_device = f", device × {torch.cuda.max_memory_allocated() / held:.3f}" if held else ""
    print(f"save {step}: training waits {waited:.2f} s, written after {took:.2f} s, host + {host:.3f} GB{on_device}")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
