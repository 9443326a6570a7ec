"""Speed of a training step on a CPU, relative to the published structure and to the machine's rate of matrix products.

    python benchmarks/training.py [--save] [--quick] [--pairs 2] [--batches 8 16] [--dropouts 0.1 0]

The forward and backward pass of RAR-B (6 of its 24 blocks) in float32 with labels from 1,000 classes, in turn with
``published_training.py`` on the same weights, and with products of large square matrices. "share" is the rate of the products that
were really executed (causal attention without what is masked, modulations once for each class) over the rate of the square ones; of
the baseline, its own products. Without dropout the gradients of both are compared. A profile says where the rest of the time goes.

Medians throughout; ratios are medians over pairs. ``--save`` writes benchmarks/results/training.json; ``training_cuda.py`` measures
GPUs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rarkit.runtime.kept_memory import kept_memory

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


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
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
    return rows


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--dropouts", nargs="+", type=float, default=[0.1, 0.0])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--depth", type=int, default=6, help="of RAR-B's 24 blocks")
    parser.add_argument("--quick", action="store_true", help="two blocks, one pair, batch 2: only to see that it runs")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.depth, options.pairs, options.batches = 2, 1, [2]
    # As training does; the baseline gains from it too.
    with kept_memory():
        rows = measured(options)
    if options.save:
        from machine import machine

        told = {"machine": machine(), "options": vars(options), "rows": rows}
        (RESULTS / "training.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
