"""Bits per token of held-out images while a training runs, in the file ``held_out.json`` of its output. They decide nothing in it.

Shape letters: N images of the subset that belong to a rank, B images of a pass, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rarkit.cache.output import StageOutput
from rarkit.cache.row_reader import read_rows
from rarkit.engine.watching import Look
from rarkit.errors import IncompleteError, RecipeError
from rarkit.files.stored_json import read_json
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.randomness import derived_seed, drawn_rows
from rarkit.recipe.experiment import Experiment
from rarkit.runtime.devices import in_float64
from rarkit.stages.base import Work

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.training.next_token import NextToken

FILE = "held_out.json"
NEGLIGIBLE = 0.05
"""A share of the lowest bits per token; a smaller rise is not worth a remark."""
SPLIT = "test"
TOKENS, LABELS = f"{SPLIT}_tokens", f"{SPLIT}_labels"
LARGEST = 2**24


@final
class HeldOutBits(BaseModel):
    """What the model after ``step`` steps needs for a token of the subset, in bits."""

    model_config = ConfigDict(strict=True, frozen=True)

    step: Annotated[int, Field(ge=0)]
    held_out_bits: float
    """Along the scan order."""
    held_out_bits_random_orders: float | None = None
    """Averaged over random orders; None if the training has none."""

    def record(self) -> dict[str, float]:
        """The entry in the log."""
        return self.model_dump(exclude_none=True)


@final
class HeldOutLog(BaseModel):
    """What the file says."""

    model_config = ConfigDict(strict=True)

    entries: Annotated[tuple[HeldOutBits, ...], Field(max_length=2**17)]


def held_out_bits(output: StageOutput) -> list[HeldOutBits]:
    """What was measured during a training, by step; empty if nothing was. Raises IncompleteError if it is damaged."""
    if FILE not in output.file_names():
        return []
    data = output.read_file(FILE)
    place = f"{FILE} of {output}"
    return list(read_json(HeldOutLog, data, place, output.cure, most=LARGEST, raising=IncompleteError).entries)


def check_held_out(experiment: Experiment, tokens: StageOutput | None) -> None:
    """Checks that there are held-out images, if the recipe asks for their bits per token.

    Args:
        experiment: a recipe that trains.
        tokens: what ``train.tokens`` names.

    Raises:
        RecipeError: there are none.
    """
    train = experiment.recipe.train
    if train is None or train.evaluate_every is None:
        return
    if tokens is not None and TOKENS not in tokens.begun().arrays:
        raise RecipeError(
            f"train.evaluate_every measures held-out images, and train.tokens = {train.tokens!r} has none. Leave evaluate_every "
            "out, or name the output of a stage tokenize of a dataset that has test images."
        )
    if tokens is None and experiment.held_out_split != SPLIT:
        raise RecipeError(
            f"train.evaluate_every measures held-out images, and dataset {experiment.recipe.dataset.name!r} has none. Leave "
            "evaluate_every out, or name test images in [dataset]."
        )


def said_of(entries: list[HeldOutBits]) -> str:
    """The latest measurement in words, and whether an earlier one was clearly better."""
    last, best = entries[-1], min(entries, key=lambda entry: entry.held_out_bits)
    said = f"{last.held_out_bits:.3f} bits per token of held-out images after {last.step:,} steps"
    if last.held_out_bits <= (1 + NEGLIGIBLE) * best.held_out_bits:
        return said
    return f"{said}, {best.held_out_bits:.3f} after {best.step:,}: the model is overfitting"


@final
class HeldOut:
    """Measures a fixed subset of the held-out images, of which each rank takes a part; on all ranks."""

    def __init__(self, work: Work[Any], task: NextToken, tokens: StageOutput) -> None:
        """Reads the subset.

        Args:
            work: that of the stage.
            task: what is trained.
            tokens: an output of ``tokenize`` with held-out images.
        """
        self._work, self._task, self._settings = work, task, task.settings
        rows_N = drawn_rows(task.seed, tokens.layout(TOKENS).shape[0], self._settings.evaluate_images)
        rank, size = work.ranks.rank, work.ranks.size
        part = slice(rank, None, size)
        self._own, self._most = len(rows_N[part]), -(-len(rows_N) // size)
        if self._own == 0:
            # A rank without images takes part in passes that all ranks must make.
            part = slice(0, 1)
        self._rows_N = rows_N[part]
        self._tokens_NL, self._labels_N = (
            # The same rows on all ranks, because those of a machine fetch them together.
            read_rows(tokens, name, rows_N, ranks=work.ranks, reporter=work.reporter)[part].astype(np.int64)
            for name in (TOKENS, LABELS)
        )
        random = any(task.schedule.random_ratio(step, self._settings.steps) > 0 for step in _some(self._settings.steps))
        self._random_orders = self._settings.evaluate_orders if random else 0
        self._known: dict[int, HeldOutBits] = {}

    def begin(self, look: Look) -> None:
        """Takes over what was measured before an interruption."""
        ranks, step = self._work.ranks, look.trainer.step
        known = [HeldOutBits.model_validate(entry) for entry in ranks.told(lambda: self._stored(step))]
        self._known = {entry.step: entry for entry in known}
        for entry in known if ranks.first else ():
            look.log(entry.record())

    def _stored(self, step: int) -> list[dict[str, Any]]:
        return [entry.model_dump() for entry in held_out_bits(self._work.output) if entry.step <= step]

    def look(self, look: Look) -> None:
        """Measures, and notes it; nothing if a signal breaks it off, or it was noted before."""
        step = look.trainer.step
        if step in self._known or (sums := self._sums(look)) is None:
            return
        along, random, count = look.trainer.mesh.total(sums).tolist()
        of_random = random / (count * self._random_orders) / math.log(2) if self._random_orders else None
        entry = HeldOutBits(step=step, held_out_bits=along / count / math.log(2), held_out_bits_random_orders=of_random)
        self._known[step] = entry
        if self._work.ranks.first:
            entries = [known.model_dump() for known in self._known.values()]
            self._work.output.write_file(FILE, json.dumps({"entries": entries}, indent=1).encode())
            look.log(entry.record())
            self._work.reporter.say(f"train: {said_of(list(self._known.values()))}")
            look.trackers.log(step, {f"train/{name}": value for name, value in entry.record().items() if name != "step"})

    def _sums(self, look: Look) -> Tensor | None:
        """Nats per token along the scan order, along random orders, and images, (3,) float64, summed over this rank's images."""
        import torch

        # As many images as in training: kernels that are compiled for other sizes too are slower.
        batch, sums = look.trainer.degrees.micro, []
        with look.trainer.evaluating() as networks:
            (network,) = networks.values()
            for start in range(0, self._most, batch):
                place_B = np.arange(start, start + batch)
                counts_B = torch.from_numpy(place_B < self._own).to(look.trainer.device)
                index_B = place_B % len(self._rows_N)
                for which in range(1 + self._random_orders):
                    if look.stopping():
                        return None
                    nats_B = in_float64(self._nats(network, look.trainer.device, index_B, which))
                    nats = nats_B[counts_B.to(nats_B.device)].sum()
                    zero = torch.zeros_like(nats)
                    sums.append(torch.stack([zero, nats, zero] if which else [nats, zero, counts_B.sum().to(nats)]))
        return torch.stack(sums).sum(0)

    def _nats(self, network: Any, device: str, index_B: NDArray[np.int64], which: int) -> Tensor:
        import torch
        from torch.nn import functional

        order_L, rows_B = self._task.scan_order_L, self._rows_N[index_B]
        orders_BL = np.tile(order_L, (len(index_B), 1))
        if which:
            seed = derived_seed(self._task.seed, "held-out orders")
            orders_BL = draw_orders(order_L, 1.0, seed=seed, step=which, indices=rows_B)
        arrays = self._tokens_NL[index_B], self._labels_N[index_B], orders_BL
        tokens_BL, labels_B, orders = (torch.from_numpy(array).to(device) for array in arrays)
        logits_BLV = network(tokens_BL, labels_B, orders)
        targets_BL = tokens_BL.gather(1, orders)
        return functional.cross_entropy(logits_BLV.float().transpose(1, 2), targets_BL, reduction="none").mean(1)


def _some(steps: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, steps - 1, 1000).astype(np.int64))
