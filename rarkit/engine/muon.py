"""Muon (Jordan et al., 2024; arXiv 2502.16982) for matrices that may be shared between processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, final

import torch
from torch import Tensor, nn

from rarkit.engine.shards import like, whole

MOMENTUM = 0.95


@final
class Muon(torch.optim.Optimizer):
    """``torch.optim.Muon`` for whole matrices and for shards of them, with the same result.

    Updates are scaled to the size of AdamW's (``adjust_lr_fn="match_rms_adamw"``), so that learning rate and weight decay mean the
    same in both. Newton-Schulz iterations need the whole matrix. Those of torch on a DTensor communicate 11 to 16 times a matrix,
    and sum parts of tall matrices in bfloat16, which moves the update by 2 to 3 %. Here each process gathers a matrix once, in the
    dtype of the momentum, and computes the update that one process would. Momentum stays sharded.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], *, lr: float = 0.0, weight_decay: float = 0.0) -> None:
        """``matrices``: parameters of two dimensions."""
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": MOMENTUM})
        # Without momentum and decay of its own it only makes an update of a gradient. Its weights are exchanged for each matrix.
        placeholder = nn.Parameter(torch.zeros(1, 1))
        self._plain = torch.optim.Muon(
            [placeholder], lr=0.0, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn="match_rms_adamw"
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Takes one step. Processes that share matrices must all call it; there is no closure."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(momentum, group["momentum"])
                update = self._update(whole(nesterov), group["lr"])
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(like(weight, update))

    def _update(self, gradient: Tensor, rate: float) -> Tensor:
        """What torch's Muon adds to a matrix with this gradient."""
        matrix = nn.Parameter(torch.zeros_like(gradient))
        matrix.grad = gradient
        (group,) = self._plain.param_groups
        group["params"], group["lr"] = [matrix], rate
        self._plain.step()  # type: ignore[no-untyped-call]
        self._plain.state.clear()
        return matrix.detach()
