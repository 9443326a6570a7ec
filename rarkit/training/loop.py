"""The training loop: native torch, resumable to the same bits.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarkit.errors import RarkitError, RarkitWarning
from rarkit.runtime.processors import lacks_bfloat16
from rarkit.models.rar.rar import RAR
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.randomness import derived_seed
from rarkit.training.batches import dropped_labels, rows_of_step
from rarkit.training.optimizer import learning_rate, make_optimizer


class Rows(Protocol):
    """Rows of a stored array, by index; the cache's reader is one."""

    def __len__(self) -> int: ...

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows (B, …) at ``indices`` (B,)."""
        ...


@final
@dataclass(frozen=True)
class TrainingPlan:
    """All that decides a training run, besides the model's initial weights and the data."""

    seed: int
    steps: int
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    end_learning_rate: float
    warmup_steps: int
    betas: tuple[float, float]
    weight_decay: float
    gradient_clip: float | None
    precision: str
    compile: bool
    activation_checkpointing: bool
    scan_order_L: NDArray[np.int64]
    schedule: PermutationSchedule


@final
@dataclass(frozen=True)
class StepRecord:
    """What one step reports: mean cross-entropy in nats per token, and what it was trained with."""

    step: int
    loss: float
    accuracy: float
    gradient_norm: float
    learning_rate: float
    random_ratio: float


@final
class Trainer:
    """A model in training: ``advance`` does one optimizer step, ``state`` and ``restore`` carry it over an interruption."""

    def __init__(self, model: RAR, tokens: Rows, labels: Rows, plan: TrainingPlan, device: str) -> None:
        self.model = model.to(device).train()
        self.tokens, self.labels, self.plan, self.device = tokens, labels, plan, device
        self.optimizer = make_optimizer(model, betas=plan.betas, weight_decay=plan.weight_decay)
        self.step = 0
        if plan.precision == "bfloat16" and lacks_bfloat16(torch.device(device)):
            warnings.warn(
                "this processor has no instructions for bfloat16 (AVX-512): training in it takes some ten times as long as in "
                "float32 here. Set train.precision = 'float32', or train on a GPU.",
                RarkitWarning,
                stacklevel=2,
            )
        self._forward: Callable[..., Tensor] = torch.compile(self.model) if plan.compile else self.model

    def advance(self) -> StepRecord:
        """One optimizer step.

        Raises:
            RarkitError: the loss is not a number any more; the message says at which step.
        """
        plan, step = self.plan, self.step
        tokens_BL, labels_B, orders_BL, dropped_B, ratio = self._batch()
        rate = learning_rate(step, base=plan.learning_rate, end=plan.end_learning_rate, warmup=plan.warmup_steps, total=plan.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = accuracy = torch.zeros((), device=self.device)
        # Dropout draws from torch's own generator: seeded for each step, so that a resumed run draws what an undisturbed one would.
        devices = [self.device] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derived_seed(plan.seed, "dropout", step))
            for start in range(0, plan.batch_size, plan.micro_batch_size):
                part = slice(start, start + plan.micro_batch_size)
                logits_BLV = self._logits(tokens_BL[part], labels_B[part], orders_BL[part], dropped_B[part])
                targets_BL = tokens_BL[part].gather(1, orders_BL[part])
                share = len(targets_BL) / plan.batch_size
                part_loss = functional.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten()) * share
                part_loss.backward()  # type: ignore[no-untyped-call]
                loss = loss + part_loss.detach()
                accuracy = accuracy + (logits_BLV.argmax(-1) == targets_BL).float().mean() * share
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.gradient_clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        record = StepRecord(step, loss.item(), accuracy.item(), norm.item(), rate, ratio)
        if not math.isfinite(record.loss):
            raise RarkitError(
                f"the loss became {record.loss} at step {step}. Lower train.learning_rate, lengthen train.warmup_steps, or "
                "train in float32."
            )
        return record

    def _logits(self, tokens_BL: Tensor, labels_B: Tensor, orders_BL: Tensor, dropped_B: Tensor) -> Tensor:
        enabled = self.plan.precision != "float32"
        with torch.autocast(torch.device(self.device).type, getattr(torch, self.plan.precision), enabled=enabled):
            return self._forward(
                tokens_BL, labels_B, orders_BL, dropped_B=dropped_B, checkpointing=self.plan.activation_checkpointing
            )

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        plan, step = self.plan, self.step
        rows_B = rows_of_step(plan.seed, step, plan.batch_size, len(self.tokens))
        ratio = plan.schedule.random_ratio(step, plan.steps)
        orders_BL = draw_orders(plan.scan_order_L, ratio, seed=plan.seed, step=step, indices=np.arange(plan.batch_size))
        dropped_B = dropped_labels(plan.seed, step, plan.batch_size, self.model.config.class_dropout)
        arrays = (*(rows.rows(rows_B).astype(np.int64) for rows in (self.tokens, self.labels)), orders_BL, dropped_B)
        tokens_BL, labels_B, orders, dropped = (torch.from_numpy(array).to(self.device) for array in arrays)
        return tokens_BL, labels_B, orders, dropped, ratio

    def state(self) -> dict[str, Any]:
        """All that changes during training, for ``torch.save``: tensors and plain numbers only."""
        return {"step": self.step, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a state, to the same bits as if there had been no interruption."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def as_columns(records: list[StepRecord]) -> dict[str, NDArray[Any]]:
    """Step records as arrays by name: step int64, the others float64."""
    return {
        field.name: np.array(
            [getattr(record, field.name) for record in records], dtype=np.int64 if field.name == "step" else np.float64
        )
        for field in dataclasses.fields(StepRecord)
    }
