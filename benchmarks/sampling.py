"""Speed of rarkit's sampler, relative to a reimplementation of the published one and to the limits of the hardware.

    python benchmarks/sampling.py [--pairs 3] [--cases 1:float32 8:float32 …] [--sizes rar_b …]

Random weights of the released shapes, released guidance, one image per label, all labels different, whole images of 256 tokens.
Each case is timed in turn with the baseline (``published_sampler.py``) in float32 and in the case's own dtype. Times are medians,
ratios are medians over pairs. Read bandwidth and matrix rate of the machine are measured first. The floor of a case is the larger
of two times: the bytes it must read (weights and filled cache for each entry) over the bandwidth, and its operations over the rate.
On a processor without bfloat16 instructions, the float32 rate and the float32 baseline are used for bfloat16 too. Each row records
whether rarkit's compiled kernels were used (x86 processors with GCC) or PyTorch's matrix products.

On a CPU the cases are batches of 1, 8 and 32 with RAR-B; on a GPU 1, 64 and 256 with RAR-B and RAR-XL in bfloat16. Prints a table
and writes benchmarks/results/sampling_<gpu or CPU capability>.json with a description of the machine.
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
from rarkit.models.rar.decoding.prepared import Prepared
from rarkit.models.rar.sampling_costs import sampling_flops, sampling_traffic
from rarkit.models.rar.sizes import PRESETS
from rarkit.recipe.released import RELEASED
from rarkit.runtime.processors import lacks_bfloat16
from rarkit.sampling import PowerCosine, generate

RESULTS = Path(__file__).parent / "results"
CPU_CASES = ["1:float32", "1:bfloat16", "1:int8", "8:float32", "32:bfloat16"]
GPU_CASES = ["1:bfloat16", "64:bfloat16", "256:bfloat16"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.bfloat16}


@dataclass(frozen=True)
class Hardware:
    """Peak rates of this machine, measured in the same run."""

    bytes_per_second: float
    flops_per_second: dict[str, float]


def seconds(work: Callable[[], object]) -> float:
    """The time that a call takes, GPU work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def hardware(device: str) -> Hardware:
    """Measures bandwidth by reading a tensor far larger than any cache, and rates by multiplying large square matrices."""
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
    """A RAR in which all weights are random, including the modulations, which are initialised to zero."""
    with torch.device(device):
        model = RAR(PRESETS[size], seed=0).eval()
    generator = torch.Generator(device).manual_seed(1)
    for weight in model.parameters():
        if not weight.any():
            weight.data.normal_(0.0, 0.02, generator=generator)
    return model


def ready(model: RAR, dtype: str) -> Prepared:
    """A copy of the model in the case's dtype, prepared for decoding."""
    return copy.deepcopy(model).to(DTYPES[dtype]).prepare(int8=dtype == "int8")


def measure(model: RAR, size: str, case: str, pairs: int, peak: Hardware) -> dict[str, Any]:
    """Times a case; returns a row of the table."""
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

    # Warm-up, so that what libraries set up on first use is not timed. On a GPU, cuDNN does so for each length of the cache.
    steps = None if device.type == "cuda" else 8
    for warm in (ours, baseline(model, steps), baseline(same, steps)):
        warm()
    rows = []
    for _ in range(pairs):
        theirs, mine = seconds(baseline(model)), seconds(ours)
        rows.append((theirs, mine, theirs if same is model else seconds(baseline(same))))
    mine = statistics.median(row[1] for row in rows)
    traffic = sampling_traffic(config, batch=batch, guided_steps=config.seq_len, dtype=dtype)
    flops = sampling_flops(config, batch=batch, classes=batch, guided_steps=config.seq_len)
    memory, compute = traffic / peak.bytes_per_second, flops / peak.flops_per_second[dtype]
    return {
        "model": size,
        "batch": batch,
        "dtype": dtype,
        "compiled_kernels": prepared.weights.kernels is not None,
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
    peak = hardware(device)
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in peak.flops_per_second.items())
    print(f"read bandwidth {peak.bytes_per_second / 1e9:,.1f} GB/s; matrix rates {rates}", flush=True)
    headings = ("baseline", 10), ("rarkit", 9), ("ratio", 7), ("own dtype", 11), ("images/s", 10), ("of floor", 10)
    print(f"{'model':7}{'batch':>6} {'dtype':9}" + "".join(f"{name:>{width}}" for name, width in headings))
    rows = []
    for size in options.sizes:
        model = random_model(size, device)
        for case in options.cases:
            row = measure(model, size, case, options.pairs, peak)
            rows.append(row)
            print(
                f"{size:7}{row['batch']:6} {row['dtype']:9}{row['baseline_float32_seconds']:8.2f} s{row['seconds']:7.2f} s"
                f"{row['ratio']:7.2f}{row['ratio_same_dtype']:11.2f}{row['images_per_second']:10.3f}{row['share_of_floor']:10.0%}",
                flush=True,
            )
            keep(device, vars(options), peak, rows)


def keep(device: str, options: dict[str, Any], peak: Hardware, rows: list[dict[str, Any]]) -> None:
    """Writes the results so far, because the last case may take long."""
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": options, **asdict(peak), "rows": rows}
    kind = "gpu" if device == "cuda" else torch.backends.cpu.get_cpu_capability().lower()
    (RESULTS / f"sampling_{kind}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
