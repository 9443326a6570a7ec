"""What the engine trains: the contract between a task (the generator, a classifier, a tokenizer) and the loop over its steps.

Shape letters: B samples of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from rarkit.engine.degrees import Degrees
    from rarkit.engine.settings import TrainSettings


ERROR = "error"
"""Of the numbers that ``Task.errors`` returns, the one that chooses the weights."""


@final
@dataclass(frozen=True)
class Losses:
    """What a network's pass over some samples gives: means over these samples, as scalars on their device."""

    loss: Tensor
    """What is differentiated."""
    measures: Mapping[str, Tensor] = field(default_factory=dict)
    """Other numbers for the log, by name."""


class Task(ABC):
    """Modules, their losses, their optimizers, and batches that are a pure function of seed, step and sample."""

    networks: Mapping[str, nn.Module]
    """What is trained, by name: in each step, each network by its own optimizers on its own loss, in this order. A loss may use the
    other networks (from here, not from ``loss``'s argument): as they are then, and without gradients for their weights."""
    held_out_samples: int = 0
    """How many samples are not trained on, but measured with ``errors`` from time to time, if ``Learning.train`` is asked to."""
    best_from: int = 0
    """The steps after which a measurement counts when the best weights are chosen: a loss that begins late makes earlier errors
    another thing."""

    @abstractmethod
    def batch(self, step: int, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        """Samples of a step's global batch.

        Args:
            step: the step, from 0.
            indices_B: (B,) int64 in [0, batch size), which of the batch's samples.

        Returns:
            Tensors on the CPU by name, the first axis of each B: a function of the task, ``step`` and ``indices_B`` alone, in which
            a row depends on its own index.
        """

    @abstractmethod
    def loss(self, name: str, network: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
        """The loss of a network on some samples.

        Args:
            name: of the network, as in ``networks``.
            network: the network itself, or what shares its gradients with other processes: call this one.
            batch: what ``batch`` returned, on the network's device.
        """

    def blocks(self, name: str) -> Sequence[nn.Module]:
        """The parts of a network that are compiled, and sharded, one by one: those that repeat; none if it is one piece.

        Nothing of a block may be used outside its ``forward``, around which its weights are gathered.
        """
        return ()

    def optimizers(self, name: str, settings: TrainSettings) -> Sequence[Optimizer]:
        """New optimizers of a network's weights; unless a task has its own, those that the settings name."""
        from rarkit.engine.optimizer import make_optimizers

        return make_optimizers(self.networks[name], settings)

    def held_out_batch(self, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        """Held-out samples, as tensors on the CPU whose first axis is B; required if ``held_out_samples`` is not 0.

        Args:
            indices_B: (B,) int64 in [0, held_out_samples), which of them; one may come twice.
        """
        raise PluginError(
            f"{type(self).__name__} has held_out_samples, but no held_out_batch that gives them. Write it in the task."
        )

    def errors(self, networks: Mapping[str, nn.Module], batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Measures networks on held-out samples; required if ``held_out_samples`` is not 0.

        Args:
            networks: those of ``networks`` as they would be kept, in eval mode; call these. No gradients are computed.
            batch: what ``held_out_batch`` returned, on their device.

        Returns:
            Numbers of each sample, (B,), by name: ``"error"``, of which lower is better, and any others. Their means are logged as
            ``held_out_error`` and so on, and the weights with the lowest mean error are kept.
        """
        raise PluginError(f"{type(self).__name__} has held_out_samples, but no errors that measures them. Write it in the task.")

    def previews(self, networks: Mapping[str, nn.Module]) -> Mapping[str, NDArray[np.uint8]]:
        """Images for previews, with networks as for ``errors``: some originals, and what becomes of them.

        Returns:
            Rows of images by caption, (M, H, W, C) uint8 of one or three channels, each of equally many; nothing by default.
        """
        return {}

    def stepped(self, step: int, total: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
        """Called once after each step of the optimizers, on every process, however many passes the step had: for what moves without
        gradients, such as codes that follow averages of what ``loss`` saw. Buffers that it changes must become the same on all
        processes; what it draws from torch's generator is.

        Args:
            step: the step, from 0.
            total: sums a tensor over all processes, in place, and returns it; all must call it equally often.

        Returns:
            Scalars for the log by name, the same on all processes.
        """
        return {}

    def numbers(self, step: int) -> Mapping[str, float]:
        """Numbers of a step for the log that are known beforehand."""
        return {}

    def flops(self, samples: int) -> int | None:
        """FLOPs of a step of so many samples: forward and backward pass, without recomputation; None if unknown."""
        return None

    def memory(self, degrees: Degrees, precision: str) -> str | None:
        """What training needs of a process's memory by estimate, in words, for messages about it; None if unknown.

        Args:
            degrees: how a batch is divided.
            precision: autocast's dtype, or ``"float32"``.
        """
        return None

    def describe(self, step: int) -> str:
        """Which samples the batch of a step has, for messages about it."""
        return f"the samples of step {step}"

    def check(self, batch: Mapping[str, Tensor]) -> None:
        """Called once before the first step, with the networks and the samples of a pass on their device.

        Raises:
            RarkitError: they cannot be trained.
        """
        return
