"""Speed of a training step, relative to the published structure and to the machine's rate of matrix products.

    python benchmarks/training.py [--save] [--quick] [--pairs 2] [--batches 8 16] [--dropouts 0.1 0]
    python benchmarks/training.py --device cuda [--save] [--sizes rar_b rar_l] [--batches 64]
    python benchmarks/training.py --digits OTHER_CHECKOUT [--save] [--pairs 7]

On a CPU: the forward and backward pass of RAR-B (6 of its 24 blocks) in float32 with labels from 1,000 classes, in turn with
``published_training.py`` on the same weights, and with products of large square matrices. "share" is the rate of the products that
were really executed (causal attention without what is masked, modulations once for each class) over the rate of the square ones; of
the baseline, its own products. Without dropout the gradients of both are compared. A profile says where the rest of the time goes.

On a GPU: whole steps with fused AdamW, bfloat16 autocast and dropout 0.1 (flex: no dropout of attention weights), eager and
compiled per block, for each attention backend; samples per second, and MFU: executed products, activations not recomputed, over the
data sheet's peak.

With ``--digits``: whole steps of the digits recipe's training on one core, here and in another checkout, in turn in processes of
their own. Medians throughout; ratios are medians over pairs. ``--save`` writes benchmarks/results/training[_cuda|_digits].json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.runtime.kept_memory import kept_memory

BACKENDS = {"sdpa": SDPA, "flex": Flex, "plain": Plain}
RESULTS = Path(__file__).parent / "results"
SIDE = 2048


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def product_rate() -> float:
    """FLOP/s of square products of 2,048, the fastest of five."""
    import torch

    square = torch.randn(SIDE, SIDE)
    return 2 * SIDE**3 / min(seconds(lambda: square @ square) for _ in range(5))


def executed(config: Any, batch: int, conditions: int, *, causal: bool) -> float:
    """FLOPs of a forward and backward pass, by arithmetic.

    Args:
        config: the model's sizes.
        batch: images.
        conditions: sets of modulations that are computed: distinct classes, or images.
        causal: whether attention leaves out what is masked (half) and the last entry is not computed.
    """
    width, entries = config.hidden_size, config.seq_len + (1 if causal else 2)
    block = batch * (4 * width**2 + 2 * width * config.mlp_hidden_size) + conditions * 6 * width**2
    rows = config.seq_len if causal else entries
    head = rows * (batch * width * config.codebook_size + conditions * 2 * width**2)
    attention = config.depth * batch * 2 * entries**2 * width * (0.5 if causal else 1)
    return 6.0 * (config.depth * entries * block + head + attention)


def problem(size: str, batch: int, dropouts: tuple[float, float], depth: int | None, device: str) -> tuple[Any, tuple[Any, ...]]:
    """A model in which all weights are random, and a batch; ``dropouts`` are that of layers and that of attention weights."""
    import torch

    from rarkit.models import PRESETS, RAR

    changed = {"dropout": dropouts[0], "attention_dropout": dropouts[1]} | ({} if depth is None else {"depth": depth})
    model = RAR(PRESETS[size].model_copy(update=changed), seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    config = model.config
    tokens_BL = torch.randint(config.codebook_size, (batch, config.seq_len), generator=generator)
    labels_B = torch.randint(config.num_classes, (batch,), generator=generator)
    orders_BL = torch.stack([torch.randperm(config.seq_len, generator=generator) for _ in range(batch)])
    return model.to(device).train(), tuple(tensor.to(device) for tensor in (tokens_BL, labels_B, orders_BL))


def backward(logits_BLV: Any, batch: tuple[Any, ...]) -> None:
    from torch.nn import functional

    functional.cross_entropy(logits_BLV.flatten(0, 1).float(), batch[0].gather(1, batch[2]).flatten()).backward()


def on_cpu(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from published_training import PublishedTraining

    torch.set_num_threads(options.threads)
    rows = []
    print(f"{'batch':>6}{'dropout':>9}{'published':>12}{'rarkit':>10}{'ratio':>7}{'share':>8}{'published':>11}{'GFLOP/s':>9}")
    for size in options.batches:
        for dropout in options.dropouts:
            model, batch = problem("rar_b", size, (dropout, dropout), options.depth, "cpu")
            published, seeds_B = PublishedTraining(model), torch.arange(size)

            def ours(model: Any = model, batch: Any = batch, seeds_B: Any = seeds_B) -> None:
                model.zero_grad()
                backward(model(*batch, mask_seeds_B=seeds_B), batch)

            def theirs(model: Any = model, batch: Any = batch, published: Any = published) -> None:
                model.zero_grad()
                backward(published(*batch), batch)

            classes = len(batch[1].unique())
            work = executed(model.config, size, classes, causal=True)
            published_work = executed(model.config, size, size, causal=False)
            row: dict[str, Any] = {"batch": size, "dropout": dropout, "classes": classes, "flops": work}
            if dropout == 0:
                row["largest_difference_of_gradients"] = difference(model, ours, theirs)
            else:
                ours()
                theirs()
            pairs = []
            for _ in range(options.pairs):
                rates = [product_rate()]
                mine = seconds(ours)
                rates.append(product_rate())
                other = seconds(theirs)
                rates.append(product_rate())
                # Each beside the rates measured before and after it.
                pairs.append((mine, other, (rates[0] + rates[1]) / 2, (rates[1] + rates[2]) / 2))
            row |= {
                "seconds": statistics.median(pair[0] for pair in pairs),
                "published_seconds": statistics.median(pair[1] for pair in pairs),
                "ratio": statistics.median(pair[1] / pair[0] for pair in pairs),
                "share": statistics.median(work / pair[0] / pair[2] for pair in pairs),
                "published_share": statistics.median(published_work / pair[1] / pair[3] for pair in pairs),
                "product_rate": statistics.median(pair[2] for pair in pairs),
                "all": pairs,
            }
            row["profile"] = profiled(ours)
            rows.append(row)
            print(
                f"{size:6}{dropout:9}{row['published_seconds']:10.2f} s{row['seconds']:8.2f} s{row['ratio']:7.2f}"
                f"{row['share']:8.1%}{row['published_share']:11.1%}{row['product_rate'] / 1e9:9.0f}",
                flush=True,
            )
            for name, share in row["profile"].items():
                print(f"{share:15.1%}  {name}")
    return {"rows": rows}


def difference(model: Any, *steps: Callable[[], None]) -> float:
    """The largest difference of two steps' gradients, relative to the largest gradient of the same weight."""
    found = []
    for step in steps:
        step()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    # A bias on all keys alike moves all scores alike: its true gradient is 0.
    names = [name for name in found[0] if not name.endswith("k_norm.bias")]
    return max(float((found[0][name] - found[1][name]).abs().max() / found[1][name].abs().max()) for name in names)


def profiled(work: Callable[[], None], most: int = 12) -> dict[str, float]:
    """The shares of the operations that take longest."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    return {event.key: event.self_cpu_time_total / total for event in events[:most]}


def on_gpu(options: argparse.Namespace) -> dict[str, Any]:
    from rarkit.errors import UserError
    from rarkit.runtime.machine import GPUS, gpu_name

    title = gpu_name()
    kind = next((kind for kind in GPUS if kind in title.lower()), None)
    if kind is None:
        raise UserError(f"the peak of {title} is not known: add its data sheet to rarkit/runtime/machine.py")
    peak, rows = GPUS[kind].rates["bfloat16"], []
    print(
        f"{title}, {peak / 1e12:.0f} TFLOP/s\n{'model':7}{'attention':11}{'':10}{'batch':>6}{'step':>11}{'samples/s':>11}{'MFU':>7}"
    )
    for size in options.sizes:
        for attention in options.attention:
            for compiled in (False, True):
                row = gpu_row(size, attention, compiled, options, peak)
                rows.append(row)
                print(
                    f"{size:7}{attention:11}{'compiled' if compiled else 'eager':10}{row['batch']:6}{row['seconds'] * 1e3:8.1f} ms"
                    f"{row['samples_per_second']:11.1f}{row['mfu']:7.1%}  {row['memory'] / 2**30:.1f} GiB",
                    flush=True,
                )
    return {"gpu": title, "peak": peak, "rows": rows}


def gpu_row(size: str, attention: str, compiled: bool, options: argparse.Namespace, peak: float) -> dict[str, Any]:
    import torch

    from rarkit.engine.mesh import compile_in_place

    backend = BACKENDS[attention]()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    count = options.batches[0]
    model, batch = problem(size, count, (0.1, 0.1 if backend.has_dropout else 0.0), options.depth, options.device)
    model.attention = backend.build()
    if compiled:
        for block in model.layers:
            compile_in_place(block)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    seeds_B = torch.arange(count, device=options.device)

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
    taken = statistics.median(seconds(several) for _ in range(options.pairs)) / options.steps
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


DIGITS = """
import json, statistics, sys, time
from contextlib import nullcontext
import numpy as np, torch
torch.set_num_threads(1)
from rarkit.permutation_schedules.linear import Linear
from rarkit.models import RAR, RARConfig
try:
    from rarkit.engine.settings import TrainSettings
except ImportError:
    from rarkit.training.settings import TrainSettings
class Rows:
    def __init__(self, rows): self._rows = rows
    def __len__(self): return len(self._rows)
    def rows(self, indices): return self._rows[indices]
drawn = np.random.default_rng(0)
config = RARConfig(hidden_size=64, depth=4, num_heads=4, mlp_hidden_size=256, seq_len=16, codebook_size=64, num_classes=10,
                   dropout=0.0, attention_dropout=0.1)
settings = TrainSettings(steps=700, batch_size=64, learning_rate=4e-3, warmup_steps=100, weight_decay=0.1, precision="float32")
tokens, labels = Rows(drawn.integers(0, 64, (1438, 16))), Rows(drawn.integers(0, 10, 1438))
decided = dict(seed=1, scan_order_L=np.arange(16), schedule=Linear(start=0.25, end=0.5))
try:
    from rarkit.training.loop import Trainer
    trainer = Trainer(RAR(config), tokens, labels, settings, device="cpu", **decided)
    advance = trainer.advance
except ImportError:
    from rarkit.engine.degrees import degrees
    from rarkit.engine.trainer import Trainer
    from rarkit.training.next_token import NextToken
    task = NextToken(RAR(config), tokens, labels, settings, **decided)
    trainer = Trainer(task, settings, seed=1, device="cpu", degrees=degrees(settings, 1))
    def advance():
        trainer.advance()
        return list(trainer.records())
keeping = nullcontext()
try:
    from rarkit.runtime.kept_memory import kept_memory
    keeping = kept_memory()
except ImportError: pass
keeping.__enter__()
for _ in range(10): advance()
taken = []
for _ in range({steps}):
    began = time.perf_counter(); advance(); taken.append(time.perf_counter() - began)
print(json.dumps(statistics.median(taken)))
"""


def digits(options: argparse.Namespace) -> dict[str, Any]:
    here, other = Path(__file__).parents[1], Path(options.digits).resolve()

    def median(checkout: Path) -> float:
        code = DIGITS.replace("{steps}", str(options.steps * 20))
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True)
        return float(json.loads(done.stdout))

    pairs = [(median(other), median(here)) for _ in range(options.pairs)]
    ratio = statistics.median(before / after for before, after in pairs)
    before, after = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    print(f"digits, one core: {before * 1e3:.1f} ms a step there, {after * 1e3:.1f} ms here, ratio {ratio:.2f}")
    return {"before_seconds": before, "seconds": after, "ratio": ratio, "all": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--digits", metavar="CHECKOUT", help="another checkout, to compare the digits recipe's step with")
    parser.add_argument("--sizes", nargs="+", default=["rar_b", "rar_l"])
    parser.add_argument("--attention", nargs="+", default=["sdpa", "flex"], choices=BACKENDS)
    parser.add_argument("--batches", nargs="+", type=int)
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.1, 0.0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5, help="steps of a measurement on a GPU; a twentieth of those of the digits")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, help="blocks; by default 6 of 24 on a CPU, all on a GPU")
    parser.add_argument("--quick", action="store_true", help="two blocks, one pair, batch 2: only to see that it runs")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    options.batches = options.batches or ([64] if options.device == "cuda" else [8, 16])
    options.depth = options.depth or (6 if options.device == "cpu" else None)
    if options.quick:
        options.depth, options.pairs, options.batches, options.steps = 2, 1, [2], 1
    measure: Callable[[argparse.Namespace], dict[str, Any]] = on_gpu if options.device == "cuda" else on_cpu
    measure = digits if options.digits else measure
    # As training does; the baseline gains from it too.
    with kept_memory(options.device):
        result = measure(options)
    if options.save:
        from machine import machine

        kind = "_digits" if options.digits else "_cuda" if options.device == "cuda" else ""
        told = {"machine": machine(), "options": vars(options), **result}
        (RESULTS / f"training{kind}.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
