"""An exponential moving average of the weights in training (EMA)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from rarkit.engine.shards import local_part


def decay_at(step: int, decay: float) -> float:
    """The decay of the update after a step, counted from 0: at most (1 + step) / (10 + step).

    So the first weights do not weigh on the average of a short training; 0.9999 is reached after 90,000 steps.
    """
    return min(decay, (1 + step) / (10 + step))


@final
class Average:
    """Averaged weights of networks, in the layout and dtype of the weights: as much memory again, and shared as they are."""

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        """Begins with the weights as they are.

        Args:
            networks: by name; sharded and on their device. Only weights that are trained are averaged.
            decay: in (0, 1), reached after a number of steps; see ``decay_at``.
        """
        self.networks, self.decay = dict(networks), decay
        self._tensors = {
            f"average/{network}/{name}": weight.detach().clone()
            for network, module in self.networks.items()
            for name, weight in _trained(module)
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the average towards the weights after a step, counted from 0. Call it after the optimizers' step."""
        averages, weights = self._pairs()
        torch._foreach_lerp_(averages, weights, 1.0 - decay_at(step, self.decay))

    def state(self) -> dict[str, Tensor]:
        """The average itself, not a copy, by names ``average/<network>/<parameter>``: for checkpoints, which may load into it."""
        return dict(self._tensors)

    def weights(self, network: str) -> dict[str, Tensor]:
        """The state dict of a network in which averages stand for the weights, without copies; buffers are its own."""
        module = self.networks[network]
        averages = {id(weight): self._tensors[f"average/{network}/{name}"] for name, weight in _trained(module)}
        return {name: averages.get(id(tensor), tensor.detach()) for name, tensor in module.state_dict(keep_vars=True).items()}

    @contextmanager
    def in_networks(self) -> Iterator[None]:
        """Within it, the networks have the averaged weights, to be evaluated; afterwards their own again, bit for bit.

        Needs memory for one more weight. Do not train or update within it.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for average, weight in zip(*self._pairs(), strict=True):
            kept = weight.clone()
            weight.copy_(average)
            average.copy_(kept)

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        # The parts in this process: averages lie in the same layout as the weights, so nothing is communicated.
        weights = [local_part(weight.detach()) for module in self.networks.values() for _, weight in _trained(module)]
        return [local_part(average) for average in self._tensors.values()], weights


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, weight) for name, weight in module.named_parameters() if weight.requires_grad]
