"""The weights with the lowest error of held-out samples, and what was measured of them during a training.

Shape letters: B samples of a pass, K numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rarkit.engine.shards import local_part
from rarkit.engine.task import ERROR
from rarkit.errors import NotFiniteError, PluginError
from rarkit.randomness import derived_seed
from rarkit.runtime.devices import in_float64

if TYPE_CHECKING:
    from rarkit.engine.trainer import Trainer

HELD_OUT = "held_out_"
"""How the names of what was measured begin in the log."""


@final
class Best:
    """Measures a task, and keeps the weights with the lowest error. All ranks call its methods together.

    They are kept in the layout and dtype of the weights: as much memory again, and shared as they are.
    """

    def __init__(self, trainer: Trainer, every: int) -> None:
        """Measures nothing yet.

        Args:
            trainer: at step 0.
            every: steps between measurements, besides those before the first step and after the last.

        Raises:
            PluginError: the task has no samples to be measured with.
        """
        if trainer.task.held_out_samples < 1:
            raise PluginError(
                f"{type(trainer.task).__name__} is to keep its best weights, but has no held_out_samples to measure them with. Set "
                "that, with held_out_batch and errors, or leave best_every out."
            )
        self._trainer, self._every = trainer, every
        self._entries: list[dict[str, float]] = []
        self._tensors = {name: tensor.clone() for name, tensor in self._present().items()}

    def is_due(self, step: int) -> bool:
        """Whether it is to be measured after so many steps, and has not been."""
        due = step % self._every == 0 or step == self._trainer.settings.steps
        return due and not any(entry["step"] == step for entry in self._entries)

    def measure(self) -> Mapping[str, float]:
        """Measures the weights as they are, and keeps them if their error is the lowest so far. Returns the entry for the log.

        Raises:
            NotFiniteError: an error is no finite number.
        """
        trainer = self._trainer
        measured = _means(trainer)
        if not math.isfinite(measured[ERROR]):
            raise NotFiniteError(
                f"the error of the held-out samples became {measured[ERROR]} after {trainer.step:,} steps. Lower the learning "
                "rate, lengthen the warm-up, or train in float32."
            )
        entry = {"step": trainer.step, **{HELD_OUT + name: value for name, value in measured.items()}}
        self._entries.append(entry)
        if self.step == trainer.step:
            present = self._present()
            for name, kept in self._tensors.items():
                local_part(kept).copy_(local_part(present[name]))
        return entry

    @property
    def entries(self) -> Sequence[Mapping[str, float]]:
        """What was measured, in the order of the steps: ``step``, the steps taken by then, and ``held_out_…``."""
        return self._entries

    @property
    def step(self) -> int:
        """The steps that the kept weights were trained for."""
        counting = [entry for entry in self._entries if entry["step"] >= self._trainer.task.best_from]
        # Until one counts, the best of those before stands in.
        return int(min(counting or self._entries, key=lambda entry: entry[HELD_OUT + ERROR])["step"])

    def weights(self, name: str) -> dict[str, Tensor]:
        """The kept state dict of a network, in its layout."""
        return {key: self._tensors[f"best/{name}/{key}"] for key in self._trainer.kept(name)}

    @contextmanager
    def in_networks(self) -> Iterator[None]:
        """Within it, the networks have the kept weights, to be looked at; afterwards their own again, bit for bit.

        Needs memory for one more tensor. Do not train or measure within it.
        """
        networks = self._trainer.networks.items()
        own = {f"best/{name}/{key}": tensor.detach() for name, network in networks for key, tensor in network.state_dict().items()}
        pairs = [(local_part(own[name]), local_part(kept)) for name, kept in self._tensors.items()]
        _exchange(pairs)
        try:
            yield
        finally:
            # The other way round: of a weight under two names, the second exchange is undone first.
            _exchange(pairs[::-1])

    def columns(self) -> dict[str, NDArray[Any]]:
        """``entries`` by column; ``step`` is int64, the others are float64."""
        names = self._entries[0] if self._entries else ()
        return {
            name: np.array([entry[name] for entry in self._entries], dtype=np.int64 if name == "step" else np.float64)
            for name in names
        }

    def state(self) -> dict[str, Tensor]:
        """The kept weights, and ``entries``: for checkpoints."""
        columns = {f"measured/{name}": torch.from_numpy(values.astype(np.float64)) for name, values in self.columns().items()}
        return self._tensors | columns

    def empty_state(self, names: Sequence[str], count: int) -> dict[str, Tensor]:
        """What a checkpoint is loaded into: of ``count`` entries with these names. ``take`` takes it."""
        return self._tensors | {f"measured/{name}": torch.zeros(count, dtype=torch.float64) for name in names}

    def take(self, state: Mapping[str, Tensor], names: Sequence[str]) -> None:
        """Goes on from what was loaded."""
        rows = zip(*(state[f"measured/{name}"].tolist() for name in names), strict=True)
        self._entries = [dict(zip(names, row, strict=True)) for row in rows]
        for entry in self._entries:
            entry["step"] = int(entry["step"])

    def _present(self) -> dict[str, Tensor]:
        networks = self._trainer.networks
        return {f"best/{name}/{key}": tensor.detach() for name in networks for key, tensor in self._trainer.kept(name).items()}


def _means(trainer: Trainer) -> dict[str, float]:
    """The task's ``errors``, averaged over all held-out samples.

    Each rank takes a part of these, in as many passes as the others.
    """
    task, ranks, samples = trainer.task, trainer.mesh.ranks, trainer.task.held_out_samples
    own_N = np.arange(ranks.rank, samples, ranks.size)
    # As many samples as in training: kernels that are compiled for other sizes too are slower.
    each, most = trainer.degrees.micro, -(-samples // ranks.size)
    names: tuple[str, ...] = ()
    sums: list[Tensor] = []
    with trainer.drawing(derived_seed(trainer.seed, "held-out samples")), trainer.evaluating() as networks:
        for start in range(0, most, each):
            place_B = np.arange(start, start + each)
            # A rank that has none left takes part all the same: all ranks must call networks whose weights they share.
            index_B = own_N[place_B % len(own_N)] if len(own_N) else np.zeros(each, np.int64)
            found = task.errors(networks, trainer.on_device(task.held_out_batch(index_B)))
            names = tuple(sorted(found))
            values_KB = in_float64(torch.stack([_checked(task, name, found[name], each) for name in names]))
            counts_B = torch.from_numpy(place_B < len(own_N)).to(values_KB.device)
            sums.append(torch.where(counts_B, values_KB, 0.0).sum(1))
    if ERROR not in names:
        raise PluginError(f"{type(task).__name__}.errors returned {list(names)}; {ERROR!r} must be among them")
    totals_K = trainer.mesh.total(torch.stack(sums).sum(0))
    return {name: value / samples for name, value in zip(names, totals_K.tolist(), strict=True)}


@torch.no_grad()
def _exchange(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    for one, other in pairs:
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


def _checked(task: object, name: str, values: Any, count: int) -> Tensor:
    if not isinstance(values, Tensor) or values.shape != (count,):
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise PluginError(f"{type(task).__name__}.errors returned {name!r} as {shape}; it must be one number a sample, ({count},)")
    return values
