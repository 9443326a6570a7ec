"""Speed of whole training steps on a GPU, for each attention backend, eager and compiled per block.

    python benchmarks/training_cuda.py [--save] [--quick] [--sizes rar_b rar_l] [--attention sdpa flex] [--batch 64]

Steps have fused AdamW, bfloat16 autocast and dropout 0.1 (flex: no dropout of attention weights). Samples per second, and MFU:
executed products, activations not recomputed, over the data sheet's peak. ``--save`` writes benchmarks/results/training_cuda.json,
or ``training_cuda_batch256.json`` and so on where the batch is not 64.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from training import RESULTS, backward, executed, problem, seconds

from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.errors import UserError
from rarkit.runtime.machine import gpu_name, peak_rate

BATCH = 64
BACKENDS = {"sdpa": SDPA, "flex": Flex, "plain": Plain}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    title, peak, rows = gpu_name(), peak_rate("cuda", "bfloat16"), []
    if peak is None:
        raise UserError(f"the peak of {title} is not known: add its data sheet to rarkit/runtime/machine.py")
    print(
        f"{title}, {peak / 1e12:.0f} TFLOP/s\n{'model':7}{'attention':11}{'':10}{'batch':>6}{'step':>11}{'samples/s':>11}{'MFU':>7}"
    )
    for size in options.sizes:
        for attention in options.attention:
            for compiled in (False, True):
                row = row_of(size, attention, compiled, options, peak)
                rows.append(row)
                print(
                    f"{size:7}{attention:11}{'compiled' if compiled else 'eager':10}{row['batch']:6}{row['seconds'] * 1e3:8.1f} ms"
                    f"{row['samples_per_second']:11.1f}{row['mfu']:7.1%}  {row['memory'] / 2**30:.1f} GiB",
                    flush=True,
                )
    return {"gpu": title, "peak": peak, "rows": rows}


def row_of(size: str, attention: str, compiled: bool, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    import torch

    from rarkit.engine.mesh import compile_in_place

    backend = BACKENDS[attention]()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    count = options.batch
    model, batch = problem(size, count, (0.1, 0.1 if backend.has_dropout else 0.0), options.depth, "cuda")
    model.attention = backend.build()
    if compiled:
        for block in model.layers:
            compile_in_place(block)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    seeds_B = torch.arange(count, device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits_BLV = model(*batch, mask_seeds_B=seeds_B)
        backward(logits_BLV, batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def several() -> None:
        for _ in range(options.steps):
            step()
        torch.cuda.synchronize()

    start = seconds(several)
    # A step that waits for the device, or compiles anew, is not what is measured.
    torch.cuda.set_sync_debug_mode("error")
    step()
    torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    taken = statistics.median(seconds(several) for _ in range(options.repeats)) / options.steps
    work = executed(model.config, count, min(count, model.config.num_classes + 1), causal=True)
    return {
        "model": size,
        "attention": attention,
        "compiled": compiled,
        "batch": count,
        "seconds": taken,
        "start_seconds": start,
        "samples_per_second": count / taken,
        "mfu": work / taken / peak,
        "memory": torch.cuda.max_memory_allocated(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["rar_b", "rar_l"])
    parser.add_argument("--attention", nargs="+", default=["sdpa", "flex"], choices=BACKENDS)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--steps", type=int, default=5, help="of a measurement")
    parser.add_argument("--repeats", type=int, default=2, help="measurements, of which the median counts")
    parser.add_argument("--depth", type=int, help="blocks; by default all")
    parser.add_argument("--quick", action="store_true", help="two blocks, one step, batch 2: only to see that it runs")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.depth, options.repeats, options.batch, options.steps = 2, 1, 2, 1
    result = measured(options)
    if options.save:
        from machine import machine

        name = "training_cuda" if options.batch == BATCH else f"training_cuda_batch{options.batch}"
        told = {"machine": machine(), "options": vars(options), **result}
        (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
