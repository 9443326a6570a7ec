"""How much faster is rarkit's sampler than one that works as the published one does, and how near to what the hardware allows?

    python benchmarks/sampling.py [--pairs 3] [--cases 1:float32 8:float32 …] [--sizes rar_b …]

Random weights of the released shapes, guidance as released, one image a label, labels all different; whole images of 256 tokens.
Each case is timed in turn with the baseline (``published_sampler.py``) in float32 and in the case's own dtype; the figures are
medians, the ratios medians of the pairs. Before, the machine's read bandwidth and matrix rate are measured; a case's floor is the
larger of the bytes that it must read (weights and filled cache at each entry) over the one, and its operations over the other.
Where a processor has no instructions for bfloat16, its rate of float32 stands for both, and so does the baseline in float32. The
rows say whether rarkit's compiled kernels decoded (on x86 processors with GCC), or PyTorch's products.

On the CPU the cases are batch 1, 8 and 32 of RAR-B; on a GPU 1, 64 and 256 of RAR-B and RAR-XL in bfloat16. Prints a table and
writes benchmarks/results/sampling_<gpu, or the processor's kind>.json with the machine's description.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from machine import machine
from published_sampler import published_sampler

from rarkit.models import RAR
from rarkit.models.rar.sampling_costs import sampling_flops, sampling_traffic
from rarkit.models.rar.sizes import PRESETS
from rarkit.recipe.released import RELEASED
from rarkit.runtime.processors import lacks_bfloat16
from rarkit.sampling import PowerCosine, Prepared, generate, prepare

RESULTS = Path(__file__).parent / "results"
CPU_CASES = ["1:float32", "1:bfloat16", "1:int8", "8:float32", "32:bfloat16"]
GPU_CASES = ["1:bfloat16", "64:bfloat16", "256:bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}


@dataclass(frozen=True)
class Hardware:
    """What this machine does at its best, in the same run."""

    bytes_per_second: float
    flops_per_second: dict[str, float]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, to the end."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def hardware(device: str) -> Hardware:
    """Reads a tensor far larger than any cache; multiplies large square matrices."""
    block = torch.ones(2**28 if device == "cpu" else 2**31, device=device)
    bandwidth = block.nbytes / min(seconds(block.sum) for _ in range(9))
    rates = {}
    side = 2048 if device == "cpu" else 8192
    for name in ("float32",) if lacks_bfloat16(block.device) else ("float32", "bfloat16"):
        square = torch.randn(side, side, device=device, dtype=DTYPES[name])
        rates[name] = 2 * side**3 / min(seconds(lambda square=square: square @ square) for _ in range(9))
    best = max(rates.values())
    return Hardware(bandwidth, {"float32": rates["float32"], "bfloat16": best, "int8": best})


def random_model(size: str, device: str) -> RAR:
    """RAR with every weight random, the modulations too (a new model's are zero)."""
    with torch.device(device):
        model = RAR(PRESETS[size], seed=0).eval()
    generator = torch.Generator(device).manual_seed(1)
    for weight in model.parameters():
        if not weight.any():
            weight.data.normal_(0.0, 0.02, generator=generator)
    return model


def ready(model: RAR, dtype: str) -> Prepared:
    """A copy in the case's dtype, laid out."""
    return prepare(copy.deepcopy(model).to(DTYPES[dtype]), int8=dtype == "int8")


def measure(model: RAR, size: str, case: str, pairs: int, found: Hardware) -> dict[str, Any]:
    """One row of the table."""
    number, dtype = case.split(":")
    batch, config = int(number), model.config
    temperature, scale, power = RELEASED[size]
    device = model.cls_token.device
    guidance = PowerCosine(scale=scale, power=power)
    scales = [guidance.scale_at(step, config.seq_len) for step in range(config.seq_len)]
    labels_B, order_L = torch.arange(batch, device=device), torch.arange(config.seq_len, device=device)
    prepared = ready(model, dtype)
    alike = dtype == "float32" or lacks_bfloat16(device)
    same = model if alike else copy.deepcopy(model).to(DTYPES[dtype])

    def ours() -> None:
        generate(prepared, labels_B, order=order_L, guidance=guidance, temperature=temperature, seed=1)

    def baseline(of: RAR, steps: int | None = None) -> Callable[[], object]:
        return lambda: published_sampler(of, labels_B, order_L, scales, temperature, steps)

    # What libraries set up on first use is nobody's time.
    for warm in (ours, baseline(model, 8), baseline(same, 8)):
        warm()
    rows = []
    for _ in range(pairs):
        theirs, mine = seconds(baseline(model)), seconds(ours)
        rows.append((theirs, mine, theirs if same is model else seconds(baseline(same))))
    mine = statistics.median(row[1] for row in rows)
    traffic = sampling_traffic(config, batch=batch, guided_steps=config.seq_len, dtype=dtype)
    flops = sampling_flops(config, batch=batch, classes=batch, guided_steps=config.seq_len)
    memory, compute = traffic / found.bytes_per_second, flops / found.flops_per_second[dtype]
    return {
        "model": size,
        "batch": batch,
        "dtype": dtype,
        "compiled_kernels": prepared.kernels is not None,
        "baseline_float32_seconds": statistics.median(row[0] for row in rows),
        "baseline_dtype": "float32" if alike else "bfloat16",
        "baseline_same_dtype_seconds": statistics.median(row[2] for row in rows),
        "seconds": mine,
        "images_per_second": batch / mine,
        "ratio": statistics.median(row[0] / row[1] for row in rows),
        "ratio_same_dtype": statistics.median(row[2] / row[1] for row in rows),
        "floor_seconds": {"memory": memory, "compute": compute},
        "share_of_floor": max(memory, compute) / mine,
        "all_seconds": rows,
    }


@torch.inference_mode()
def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pairs", type=int, default=3)
    arguments.add_argument("--cases", nargs="+", default=GPU_CASES if device == "cuda" else CPU_CASES, metavar="BATCH:DTYPE")
    arguments.add_argument("--sizes", nargs="+", default=["rar_b", "rar_xl"] if device == "cuda" else ["rar_b"], choices=PRESETS)
    options = arguments.parse_args()
    found = hardware(device)
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in found.flops_per_second.items())
    print(f"reads {found.bytes_per_second / 1e9:,.1f} GB/s; multiplies {rates}", flush=True)
    headings = ("baseline", 10), ("rarkit", 9), ("ratio", 7), ("own dtype", 11), ("images/s", 10), ("of floor", 10)
    print(f"{'model':7}{'batch':>6} {'dtype':9}" + "".join(f"{name:>{width}}" for name, width in headings))
    rows = []
    for size in options.sizes:
        model = random_model(size, device)
        for case in options.cases:
            row = measure(model, size, case, options.pairs, found)
            rows.append(row)
            print(
                f"{size:7}{row['batch']:6} {row['dtype']:9}{row['baseline_float32_seconds']:8.2f} s{row['seconds']:7.2f} s"
                f"{row['ratio']:7.2f}{row['ratio_same_dtype']:11.2f}{row['images_per_second']:10.3f}{row['share_of_floor']:10.0%}",
                flush=True,
            )
            keep(device, vars(options), found, rows)


def keep(device: str, options: dict[str, Any], found: Hardware, rows: list[dict[str, Any]]) -> None:
    """Writes what is known so far: the last case may take long."""
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": options, **asdict(found), "rows": rows}
    kind = "gpu" if device == "cuda" else torch.backends.cpu.get_cpu_capability().lower()
    (RESULTS / f"sampling_{kind}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
