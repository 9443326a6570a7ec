"""One step of training after another, for any task. A resumed training gives the same bits as an uninterrupted one.

Shape letters: B samples of a pass.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rarkit.engine.average import Average
from rarkit.engine.degrees import Degrees
from rarkit.engine.facts import Facts
from rarkit.engine.gradients import clip_gradients
from rarkit.engine.late import Late
from rarkit.engine.mesh import Mesh, reshard
from rarkit.engine.optimizer import set_learning_rates
from rarkit.engine.optimizer_state import begin_state, network_tensors, optimizer_tensors
from rarkit.engine.settings import TrainSettings
from rarkit.engine.shards import whole
from rarkit.engine.task import Task
from rarkit.errors import NotFiniteError, PluginError, RarkitWarning
from rarkit.randomness import derived_seed
from rarkit.runtime.devices import in_float64
from rarkit.runtime.machine import auto_precision
from rarkit.runtime.processors import lacks_bfloat16
from rarkit.runtime.ranks import ALONE, Ranks

Record = Mapping[str, float]
"""The log entry of a step: ``step``, ``loss``, the task's measures, ``gradient_norm``, ``learning_rate``, the task's numbers. Names
begin with that of the network if there are several."""


@final
class Trainer:
    """Trains the networks of a task: ``advance`` does one step; ``tensors``, ``facts`` and ``step`` are what is saved."""

    def __init__(
        self,
        task: Task,
        settings: TrainSettings,
        *,
        seed: int,
        device: str,
        degrees: Degrees,
        precision: Literal["float32", "bfloat16"] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Prepares training from step 0; several ranks have to be ``joined``.

        Args:
            task: what is trained; its networks are moved to the device and trained in place.
            settings: the recipe's ``[train]``.
            seed: what is drawn from torch's generator depends on it, the step and the rank.
            device: a torch device string.
            degrees: how a batch is divided.
            precision: autocast's dtype; None for that of the settings.
            ranks: the processes that train together.
        """
        self.task, self.settings, self.seed, self.device = task, settings, seed, device
        self.degrees, self.mesh = degrees, Mesh(ranks, degrees, device)
        self.step = 0
        self.precision = precision or precision_of(settings, device)
        self.networks = {name: network.to(device).train() for name, network in task.networks.items()}
        # As many samples as in training: kernels that are compiled for other sizes too are slower.
        with self.drawing(derived_seed(seed, "check")):
            task.check(self._batch(0, degrees.passes(ranks.rank)[0]))
        self._wrapped = {
            name: self.mesh.wrap(network, task.blocks(name), settings, self.precision) for name, network in self.networks.items()
        }
        # Made after sharding, which replaces weights.
        self._optimizers = {name: list(task.optimizers(name, settings)) for name in self.networks}
        self._parameters = {name: list(network.parameters()) for name, network in self.networks.items()}
        self._average = None if settings.ema_decay is None else Average(self.networks, settings.ema_decay)
        self._late = Late(device)

    def advance(self, *, flags: tuple[bool, bool] = (False, False)) -> None:
        """Does one step. ``flags`` are this process's, and come back from ``records`` with those of all processes."""
        step, numbers = self.step, []
        names: list[str] = []
        for name in self.networks:
            rate = set_learning_rates(self._optimizers[name], step, self.settings)
            measured = self.gradients(name, step)
            norm = clip_gradients(self._parameters[name], self.settings.gradient_clip)
            for optimizer in self._optimizers[name]:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            # A norm is one of the whole gradient, on each process; the others are sums over its own samples.
            measured["gradient_norm"] = norm / self.degrees.size
            prefix = f"{name}_" if len(self.networks) > 1 else ""
            names += [prefix + key for key in measured]
            numbers += list(measured.values())
        if type(self.task).stepped is not Task.stepped:
            moved = self._moved(step)
            names += moved
            numbers += moved.values()
        if self._average is not None:
            self._average.update(step)
        # Filled on the device: a number that is copied there would be waited for.
        sums_N = in_float64(torch.stack([*numbers, *(torch.full((), float(flag), device=self.device) for flag in flags)]))
        self._late.put({"step": step, "names": names, "learning_rate": rate}, self.mesh.total(sums_N))
        self.step += 1

    def gradients(self, name: str, step: int) -> dict[str, Tensor]:
        """Adds up the gradients of this process's passes; returns its share of the means over the whole batch."""
        passes, wrapped = self.degrees.passes(self.mesh.ranks.rank), self._wrapped[name]
        sums: dict[str, Tensor] = {}
        rank = self.mesh.ranks.rank
        purpose = " ".join(["dropout", *([name] if len(self.networks) > 1 else []), *([f"of rank {rank}"] if rank else [])])
        # Modules that draw from torch's own generator draw the same after a resumption.
        with self.drawing(derived_seed(self.seed, purpose, step)):
            for indices_B in passes:
                batch = self._batch(step, indices_B)
                with self._others_fixed(name), self.mesh.passing(wrapped, last=indices_B is passes[-1]):
                    with self._autocast():
                        losses = self.task.loss(name, wrapped, batch)
                    (losses.loss / len(passes)).backward()  # type: ignore[no-untyped-call]
                for key, value in {"loss": losses.loss, **losses.measures}.items():
                    part = value.detach() / (len(passes) * self.degrees.size)
                    sums[key] = sums[key] + part if key in sums else part
        return sums

    def _moved(self, step: int) -> dict[str, Tensor]:
        """Lets the task move what has no gradients; returns this process's share of its numbers."""
        with torch.no_grad(), self.drawing(derived_seed(self.seed, "stepped", step)):
            moved = self.task.stepped(step, self.mesh.total)
        # The same on all processes, whose shares are added up.
        return {name: value.detach() / self.degrees.size for name, value in moved.items()}

    @contextmanager
    def drawing(self, seed: int) -> Iterator[None]:
        """Within it, torch's generator is seeded, on the host and the device; afterwards it is as it was."""
        with torch.random.fork_rng([self.device] if self.device.startswith("cuda") else []):
            # torch.manual_seed also puts down a seed for GPUs, with a stack trace: a hundredth of a small model's step.
            (torch.default_generator if self.device == "cpu" else torch).manual_seed(seed)
            yield

    @contextmanager
    def _others_fixed(self, name: str) -> Iterator[None]:
        """Around a pass of one of several networks: its loss may use the others, which get no gradients of it."""
        others = (network for other, network in self.networks.items() if other != name)
        fixed = [weight for network in others for weight in network.parameters() if weight.requires_grad]
        for weight in fixed:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in fixed:
                weight.requires_grad_(True)

    def _batch(self, step: int, indices_B: NDArray[np.int64]) -> dict[str, Tensor]:
        return self.on_device(self.task.batch(step, indices_B))

    def on_device(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the CPU on the device of the networks."""
        if not self.device.startswith("cuda"):
            return {name: tensor.to(self.device) for name, tensor in batch.items()}
        return {name: tensor.pin_memory().to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def records(self, *, all_of_them: bool = False) -> Iterator[tuple[Record, tuple[bool, bool]]]:
        """The steps whose numbers have come back by now, with the flags that any process gave with them; or all steps.

        Raises:
            NotFiniteError: the loss, or the gradient's norm, is no longer finite; the message names the step and its samples.
        """
        for known, numbers in self._late.due(all_of_them=all_of_them):
            step, names = known["step"], known["names"]
            measured = dict(zip(names, numbers, strict=False))
            for name, value in measured.items():
                # Such a gradient ruins all weights, which after the last step no loss would tell.
                if name.endswith(("loss", "gradient_norm")) and not math.isfinite(value):
                    what = name.replace("gradient_norm", "norm of the gradient").replace("_", " ")
                    raise NotFiniteError(
                        f"the {what} became {value} at step {step}, on {self.task.describe(step)}. Lower train.learning_rate, "
                        "lengthen train.warmup_steps, or train in float32."
                    )
            record = {"step": step, **measured, "learning_rate": known["learning_rate"], **self.task.numbers(step)}
            yield record, (numbers[-2] > 0, numbers[-1] > 0)

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimizer state by name, as this process holds them."""
        tensors: dict[str, Tensor] = {}
        for name, network in self.networks.items():
            for optimizer in self._optimizers[name]:
                begin_state(optimizer)
            tensors |= network_tensors(name, network) | optimizer_tensors(name, network, self._optimizers[name])
        return tensors if self._average is None else tensors | self._average.state()

    def weights(self, name: str, *, on_all: bool = False) -> dict[str, Tensor]:
        """The state dict of a network, averaged if there is an average, whole and on the CPU. All ranks must call it.

        It is empty on all but the first, unless it is to be ``on_all``.
        """
        return self.gathered(self.kept(name), on_all=on_all)

    def kept(self, name: str) -> dict[str, Tensor]:
        """The state dict of a network, averaged if there is an average, in its layout and without copies."""
        return self.networks[name].state_dict() if self._average is None else self._average.weights(name)

    def gathered(self, state: Mapping[str, Tensor], *, on_all: bool = False) -> dict[str, Tensor]:
        """A state dict whole and on the CPU; as ``weights`` otherwise."""
        whole_ones = ((key, whole(tensor.detach())) for key, tensor in state.items())
        # One by one: the whole is not on the device, and on the first rank alone.
        return {key: tensor.cpu() for key, tensor in whole_ones if on_all or self.mesh.ranks.first}

    def check_alike(self) -> None:
        """Checks that what no optimizer moves is the same on all processes; all must call it.

        Raises:
            PluginError: it is not.
        """
        for name, network in self.networks.items() if not self.mesh.alone else ():
            trained = {id(weight) for weight in network.parameters() if weight.requires_grad}
            state = network.state_dict(keep_vars=True)
            fixed = {key: tensor.detach() for key, tensor in state.items() if id(tensor) not in trained}
            if differing := self.mesh.differing(fixed):
                raise PluginError(
                    f"{', '.join(differing)} of the network {name!r} differ between processes after {self.step:,} steps. A task "
                    "that moves them does so in stepped, from totals over all processes."
                )

    @contextmanager
    def evaluating(self) -> Iterator[Mapping[str, nn.Module]]:
        """Within it, the networks by name as they would be kept: averaged if there is an average, in eval mode, without gradients,
        in the precision of training.

        Of weights that ranks share, each rank must call a network equally often.
        """
        averaged = nullcontext() if self._average is None else self._average.in_networks()
        with averaged, torch.no_grad(), self._autocast():
            for network in self.networks.values():
                network.eval()
            try:
                yield self.networks
            finally:
                for network in self.networks.values():
                    network.train()
                    # Weights that stay gathered after a forward pass would be taken for those of the next step.
                    reshard(network)

    @property
    def facts(self) -> Facts:
        """What a checkpoint keeps besides ``tensors``."""
        return Facts(precision=self.precision, micro_batch_size=self.degrees.micro, processes=self.degrees.size)

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, getattr(torch, self.precision), enabled=self.precision != "float32")


def precision_of(settings: TrainSettings, device: str) -> Literal["float32", "bfloat16"]:
    """Autocast's dtype for a training that begins; warns where it is far slower than the other."""
    precision = auto_precision(device) if settings.precision == "auto" else settings.precision
    if precision == "bfloat16" and lacks_bfloat16(torch.device(device)):
        warnings.warn(
            "this processor has no instructions for bfloat16 (AVX-512), which makes training about ten times slower than in "
            "float32. Set train.precision = 'float32', or train on a GPU.",
            RarkitWarning,
            stacklevel=3,
        )
    return precision
