"""Memory of decoding on a CPU against the estimate of `rarkit plan`. Random weights of the released widths.

    python benchmarks/sampling_memory.py [--cases rar_xl:24:256:bfloat16 …]

Each case, PRESET:DEPTH:BATCH:PRECISION, prepares the weights and decodes whole images with guidance in a fresh process. Peak
resident memory (`VmHWM`) while decoding, minus what the process held before the model was created, is compared with the estimate
for a CPU in the plan of the preset's recipe with this depth, batch and precision. RAR-XL at batch 256 takes 24 GiB, so the default
cases use fewer layers at full width. Writes benchmarks/results/sampling_memory.json.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine

from rarkit import load_recipe, plan
from rarkit.estimate.estimate import estimate
from rarkit.models import PRESETS, RAR, RARConfig
from rarkit.models.base import SamplingBytes
from rarkit.sampling import PowerCosine, generate
from rarkit.sampling.precision import MODEL_DTYPES

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[1] / "recipes"
CASES = ["rar_b:24:16:bfloat16", "rar_b:24:4:int8", "rar_xl:4:64:bfloat16", "rar_xl:4:256:bfloat16"]
BOUND = 0.1
"""Largest relative error of the plan."""


def parts(case: str) -> tuple[RARConfig, int, str]:
    """Model sizes, batch size and precision of a case."""
    preset, depth, batch, precision = case.split(":")
    return PRESETS[preset].model_copy(update={"depth": int(depth)}), int(batch), precision


def planned(case: str) -> SamplingBytes:
    """The estimate of `rarkit plan` for a CPU."""
    config, batch, precision = parts(case)
    sizes = ", ".join(f"{name} = {getattr(config, name)}" for name in ("hidden_size", "depth", "num_heads", "mlp_hidden_size"))
    overrides = [f"model={{ {sizes} }}", f"sample.batch_size={batch}", f"sample.precision={precision}"]
    recipe = load_recipe(str(RECIPES / f"{case.split(':')[0]}.toml"), overrides)
    estimated = estimate(plan(recipe, "memory://plan"))
    assert estimated.model == config
    assert estimated.sample is not None
    assert estimated.sample.batch == batch
    return estimated.sample.cpu_memory


def resident(line: str) -> int:
    """Bytes in a line of the process's status, after freed memory is returned to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(entry.split(":", 1) for entry in Path("/proc/self/status").read_text().splitlines())
    return int(status[line].split()[0]) * 1024


@torch.inference_mode()
def child(case: str) -> None:
    """Decodes, and prints time and memory as JSON."""
    config, batch, precision = parts(case)
    tiny = RARConfig(hidden_size=64, depth=1, num_heads=2, mlp_hidden_size=64, seq_len=4, codebook_size=8, num_classes=2)
    guidance = PowerCosine(scale=4.0, power=1.5)
    dtype = getattr(torch, MODEL_DTYPES[precision])
    # With the compiled kernels, as the plan assumes.
    layout = {"int8": precision == "int8", "compiled": True}
    # Warm-up, so that what libraries set up on first use is not counted.
    generate(RAR(tiny).to(dtype).prepare(**layout), [0], order=torch.arange(4), guidance=guidance)
    before = resident("VmRSS")
    torch.set_default_dtype(dtype)
    model = RAR(config, seed=None)
    for weight in model.parameters():
        weight.data.normal_(0.0, 0.02)
    torch.set_default_dtype(torch.float32)
    ready = model.eval().prepare(**layout)
    weights = resident("VmRSS") - before
    Path("/proc/self/clear_refs").write_text("5")  # Resets the peak
    began = time.perf_counter()
    generate(ready, [*range(batch)], order=torch.arange(config.seq_len), guidance=guidance, seed=1)
    seconds, peak = time.perf_counter() - began, resident("VmHWM") - before
    print(json.dumps({"seconds": seconds, "weights": weights, "peak": peak}))


def measured(case: str) -> dict[str, Any]:
    """A row of results: time and memory measured in a fresh process, and the plan's estimate."""
    command = [sys.executable, __file__, "--child", case]
    measurement = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    estimated = planned(case)
    row = {"case": case, **measurement, "said": estimated.total, "said_weights": estimated.weights + estimated.laid_out}
    row["ratio"] = row["said"] / row["peak"]
    print(
        f"{case:24} peak {row['peak'] / 2**30:6.2f} GiB, planned {row['said'] / 2**30:6.2f} GiB: {row['ratio']:.3f} × "
        f"(weights {row['weights'] / 2**30:.2f} and {row['said_weights'] / 2**30:.2f} GiB; {row['seconds']:.0f} s)",
        flush=True,
    )
    return row


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", nargs="+", default=CASES, metavar="PRESET:DEPTH:BATCH:PRECISION")
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        child(options.child)
        return
    rows = [measured(case) for case in options.cases]
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": {"cases": options.cases, "bound": BOUND}, "rows": rows}
    (RESULTS / "sampling_memory.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(0 if all(abs(row["ratio"] - 1) <= BOUND for row in rows) else 1)


if __name__ == "__main__":
    main()
