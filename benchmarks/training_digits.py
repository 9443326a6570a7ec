"""Whole steps of the digits recipe's training on one core, here and in another checkout.

    python benchmarks/training_digits.py OTHER_CHECKOUT [--pairs 7] [--steps 100] [--save]

Both in turn, each in a process of its own; medians, and the median of the pairs' ratios. It is processor time, because the time
that passes is also that of whoever else uses the machine. ``--save`` writes benchmarks/results/training_digits.json. Whole recipes:
``before_after.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
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
    began = time.process_time(); advance(); taken.append(time.process_time() - began)
print(json.dumps(statistics.median(taken)))
"""


def median(checkout: Path, steps: int) -> float:
    """Seconds of a processor that a step takes."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIGITS.replace("{steps}", str(steps))]
    return float(json.loads(subprocess.run(command, cwd=checkout, env=environment, stdout=subprocess.PIPE, check=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, metavar="OTHER_CHECKOUT")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=100, help="of each process, after ten that do not count")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    pairs = [(median(options.other.resolve(), options.steps), median(HERE, options.steps)) for _ in range(options.pairs)]
    ratio = statistics.median(before / after for before, after in pairs)
    before, after = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    print(f"digits, one core: {before * 1e3:.1f} ms a step there, {after * 1e3:.1f} ms here, ratio {ratio:.2f}")
    if options.save:
        from machine import machine

        # Without the other checkout's place, which means nothing elsewhere.
        chosen = {"pairs": options.pairs, "steps": options.steps}
        told = {"machine": machine(), "options": chosen, "before_seconds": before, "seconds": after, "ratio": ratio, "all": pairs}
        (RESULTS / "training_digits.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
