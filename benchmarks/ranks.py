"""The first steps of the digits recipe, trained by one process and shared by several: how far losses deviate.

    python benchmarks/ranks.py [--steps 50] [--ways one ddp2 fsdp2 ddp4 fsdp4 hsdp2x2] [--save]

The settings are those of recipes/digits.toml, dropout included. Trains by one process, by DDP and FSDP2 on two and four (gloo), and
by HSDP on 2 × 2; each saves a checkpoint half-way, and each then goes on from the checkpoint of every other. Prints the largest
relative deviation of loss and gradient norm from those of one process; from a checkpoint of its own, each must have the same bits
again. Exits with 1 where a loss deviates by more than 1e-5. `--save` writes benchmarks/results/ranks.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.processes import call, call_ranks, rarkit  # noqa: E402  (found by the line above)
from tests.training.in_memory import InMemory  # noqa: E402

RESULTS = Path(__file__).parent / "results"
RECIPE = ROOT / "recipes/digits.toml"
MOST = 1e-5
FSDP = "train.data_parallel=fsdp"
WAYS: dict[str, tuple[int, list[str]]] = {
    "one": (1, []),
    "ddp2": (2, []),
    "fsdp2": (2, [FSDP]),
    "ddp4": (4, []),
    "fsdp4": (4, [FSDP]),
    "hsdp2x2": (4, [FSDP, "train.shard=2", "train.replicate=2"]),
}
"""Processes, and settings."""
SHOWN = ("loss", "gradient_norm")


def made(folder: Path, changes: Sequence[str], ranks: Any) -> Any:
    """A trainer of the recipe at step 0, as stage `train` makes it."""
    from rarkit import load_recipe, plan
    from rarkit.engine.degrees import degrees
    from rarkit.engine.trainer import Trainer
    from rarkit.randomness import derived_seed
    from rarkit.stages.train import LABELS, TOKENS, TrainView
    from rarkit.training.next_token import NextToken

    planned = plan(load_recipe(RECIPE, changes), str(folder / "store"))
    view, tokens = planned["train"].view, planned["tokenize"].output
    assert isinstance(view, TrainView)
    task = NextToken(
        view.model.create(view.config, view.attention.build(), derived_seed(view.seed, "weights")),
        InMemory(tokens.read_array(TOKENS)),
        InMemory(tokens.read_array(LABELS)),
        view.train,
        seed=view.seed,
        scan_order_L=view.scan_order.order(*view.grid),
        schedule=view.permutation_schedule,
    )
    return Trainer(task, view.train, seed=view.seed, device="cpu", degrees=degrees(view.train, ranks.size), ranks=ranks)


def train(folder: Path, ways: Sequence[str], sources: Sequence[str], steps: int) -> None:
    """In each process: trains in these ways, one after another; from step 0, or half-way from each of the checkpoints."""
    import torch

    from rarkit.engine.mesh import joined
    from rarkit.runtime.together import together

    torch.set_num_threads(1)
    with together() as ranks, joined(ranks, "cpu"):
        for way in ways:
            for source in sources or [None]:
                found = trained(folder, way, source, steps, ranks)
                if ranks.first:
                    (folder / f"{way} from {source}.json").write_text(json.dumps(found))


def trained(folder: Path, way: str, source: str | None, steps: int, ranks: Any) -> dict[str, list[float]]:
    """Loss and gradient norm of each step; with a source, of those after the middle."""
    from rarkit.engine.checkpoints import Checkpoints
    from tests.engine.saving import begun

    trainer, found, middle = made(folder, WAYS[way][1], ranks), dict[str, list[float]]({name: [] for name in SHOWN}), steps // 2
    with begun(str(folder / f"checkpoints {source or way}"), ranks) as output, Checkpoints(output, ranks) as checkpoints:
        if source is not None:
            checkpoints.load(middle, trainer.tensors())
            trainer.step = middle
        while trainer.step < steps:
            trainer.advance()
            for record, _ in trainer.records(all_of_them=True):
                for name, values in found.items():
                    values.append(record[name])
            if source is None and trainer.step == middle:
                checkpoints.save(middle, trainer.tensors(), trainer.facts.model_dump(mode="json"))
    return found


def started(folder: Path, ways: Sequence[str], sources: Sequence[str], steps: int) -> None:
    """Trains in these ways, those of as many processes together."""
    for count in sorted({WAYS[way][0] for way in ways}):
        arguments = (folder, [way for way in ways if WAYS[way][0] == count], sources, steps)
        for name in ("stdout", "stderr"):
            (folder / name).unlink(missing_ok=True)
        ended = call(folder, train, *arguments) if count == 1 else call_ranks(count, folder, train, *arguments)
        assert ended.returncode == 0, ended.stderr


def deviations(folder: Path, way: str, source: str | None, steps: int) -> dict[str, float]:
    """The largest relative deviation from one process, by name."""
    one = json.loads((folder / "one from None.json").read_text())
    found = json.loads((folder / f"{way} from {source}.json").read_text())
    expected = {name: np.array(one[name][0 if source is None else steps // 2 :]) for name in SHOWN}
    return {name: float(np.max(np.abs(np.array(found[name]) - values) / values)) for name, values in expected.items()}


def compared(folder: Path, ways: Sequence[str], steps: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The deviations of each way, and from each checkpoint; and what is wrong."""
    found, wrong = {}, []
    for way in ways:
        for source in (None, *ways):
            name = way if source is None else f"{way} from {source}"
            found[name] = deviations(folder, way, source, steps)
            if found[name]["loss"] > MOST:
                wrong.append(f"{name}: the loss deviates by {found[name]['loss']:.1e}")
        own, again = (json.loads((folder / f"{way} from {source}.json").read_text()) for source in (None, way))
        if any(own[name][steps // 2 :] != again[name] for name in SHOWN):
            wrong.append(f"{way}: other bits from its own checkpoint")
    return found, wrong


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=50)
    arguments.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    arguments.add_argument("--save", action="store_true", help="write benchmarks/results/ranks.json")
    options = arguments.parse_args()
    ways = list(dict.fromkeys(["one", *options.ways]))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rarkit-ranks-") as place:
        folder = Path(place)
        command = ("run", RECIPE, "--until", "tokenize", "--store", folder / "store", "--runs", folder / "runs", "--device", "cpu")
        ended = call(folder, rarkit, *command)
        assert ended.returncode == 0, ended.stderr
        started(folder, ways, [], options.steps)
        started(folder, ways, ways, options.steps)
        found, wrong = compared(folder, ways, options.steps)
    print(f"largest relative deviation of the loss from that of one process in {options.steps} steps (of the gradient norm):")
    for name, largest in found.items():
        print(f"  {name:24} {largest['loss']:.1e} ({largest['gradient_norm']:.1e})")
    print(
        f"largest of all: {max(largest['loss'] for largest in found.values()):.1e}; {time.monotonic() - began:.0f} s",
        *wrong,
        sep="\n",
    )
    if options.save:
        from machine import machine

        RESULTS.mkdir(exist_ok=True)
        result = {"machine": machine(), "steps": options.steps, "deviations": found, "wrong": wrong}
        (RESULTS / "ranks.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
