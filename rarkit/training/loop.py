"""The training loop, in plain torch. A resumed training gives the same bits as an uninterrupted one.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rarkit.engine.optimizer import learning_rate, make_optimizer
from rarkit.engine.settings import TrainSettings
from rarkit.errors import PluginError, RarkitError, RarkitWarning
from rarkit.files.code_folders import torch_compiled
from rarkit.models.image_model import ImageModel
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.randomness import derived_seed, random_bits
from rarkit.registry.contract import origin
from rarkit.runtime.machine import auto_precision
from rarkit.runtime.processors import lacks_bfloat16
from rarkit.training.batches import dropped_labels, rows_of_step


class Rows(Protocol):
    """Rows of a stored array, by index; the cache's reader implements it."""

    def __len__(self) -> int: ...

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows (B, …) at ``indices`` (B,)."""
        ...


@final
@dataclass(frozen=True)
class StepRecord:
    """The log entry of one step; ``loss`` is the mean cross-entropy in nats per token."""

    step: int
    loss: float
    accuracy: float
    gradient_norm: float
    learning_rate: float
    random_ratio: float


@final
class Trainer:
    """Trains a model: ``advance`` does one optimizer step; ``state`` and ``restore`` save and resume."""

    def __init__(
        self,
        model: ImageModel,
        tokens: Rows,
        labels: Rows,
        settings: TrainSettings,
        *,
        seed: int,
        scan_order_L: NDArray[np.int64],
        schedule: PermutationSchedule,
        device: str,
    ) -> None:
        """Prepares training from step 0.

        Args:
            model: the model, which is moved to the device and trained in place.
            tokens: (N, L) raster grids of codes.
            labels: (N,) classes in [0, C).
            settings: the recipe's ``[train]``.
            seed: the run's seed; batches, permutations, dropped classes and masks depend on it, the step and the sample's index.
            scan_order_L: (L,) int64, the raster index visited at each step of samples that are not permuted.
            schedule: the random ratio over training.
            device: a torch device string.
        """
        self.model = model.to(device).train()
        self.tokens, self.labels, self.settings, self.device = tokens, labels, settings, device
        self.seed, self.scan_order_L, self.schedule = seed, scan_order_L, schedule
        self.optimizer = make_optimizer(model, settings)
        self.step = 0
        self._use(auto_precision(device) if settings.precision == "auto" else settings.precision)
        self._forward: Callable[..., Tensor] = torch_compiled(self.model) if settings.compile else self.model

    def check_attention(self) -> None:
        """Raises PluginError if the attention kernel computes something else than attention."""
        # With as many samples as in training: kernels that are compiled for other sizes too are slower.
        part = slice(self.settings.micro_batch_size or self.settings.batch_size)
        tokens_BL, labels_B, orders_BL, *_ = self._batch()
        with self._autocast():
            self.model.check_attention(tokens_BL[part], labels_B[part], orders_BL[part])

    def _autocast(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, getattr(torch, self.precision), enabled=self.precision != "float32")

    def advance(self) -> StepRecord:
        """Does one optimizer step.

        Raises:
            RarkitError: the loss, or the gradient's norm, is no longer finite; the message names the step.
        """
        settings, step = self.settings, self.step
        tokens_BL, labels_B, orders_BL, dropped_B, seeds_B, ratio = self._batch()
        rate = learning_rate(step, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = accuracy = torch.zeros((), device=self.device)
        # Dropout modules draw from torch's own generator. It is seeded at each step, so that a resumed run draws the same masks
        # as an uninterrupted one.
        devices = [self.device] if self.device.startswith("cuda") else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derived_seed(self.seed, "dropout", step))
            size = settings.micro_batch_size or settings.batch_size
            for start in range(0, settings.batch_size, size):
                part = slice(start, start + size)
                logits_BLV = self._logits(tokens_BL[part], labels_B[part], orders_BL[part], dropped_B[part], seeds_B[part])
                targets_BL = tokens_BL[part].gather(1, orders_BL[part])
                share = len(targets_BL) / settings.batch_size
                part_loss = functional.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten()) * share
                part_loss.backward()  # type: ignore[no-untyped-call]
                loss = loss + part_loss.detach()
                accuracy = accuracy + (logits_BLV.argmax(-1) == targets_BL).float().mean() * share
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.gradient_clip or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        record = StepRecord(step, loss.item(), accuracy.item(), norm.item(), rate, ratio)
        # Such a gradient ruins all weights, which after the last step no loss would tell.
        for what, value in (("loss", record.loss), ("gradient's norm", record.gradient_norm)):
            if not math.isfinite(value):
                raise RarkitError(
                    f"the {what} became {value} at step {step}. Lower train.learning_rate, lengthen train.warmup_steps, or train "
                    "in float32."
                )
        return record

    def _logits(self, tokens_BL: Tensor, labels_B: Tensor, orders_BL: Tensor, dropped_B: Tensor, seeds_B: Tensor) -> Tensor:
        with self._autocast():
            logits_BLV = self._forward(
                tokens_BL,
                labels_B,
                orders_BL,
                dropped_B=dropped_B,
                mask_seeds_B=seeds_B,
                checkpointing=self.settings.activation_checkpointing,
            )
        # Otherwise logits of too many codes would be trained without a word.
        expected = *tokens_BL.shape, self.model.config.codebook_size
        if logits_BLV.shape != expected:
            raise PluginError(
                f"the model {origin(type(self.model))} returns logits {tuple(logits_BLV.shape)}; they must be {expected}. Choose "
                "another [model], or correct this one."
            )
        return logits_BLV

    def _use(self, precision: Literal["float32", "bfloat16"]) -> None:
        self.precision: Literal["float32", "bfloat16"] = precision
        if precision == "bfloat16" and lacks_bfloat16(torch.device(self.device)):
            warnings.warn(
                "this processor has no instructions for bfloat16 (AVX-512), which makes training about ten times slower than in "
                "float32. Set train.precision = 'float32', or train on a GPU.",
                RarkitWarning,
                stacklevel=3,
            )

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]:
        seed, step, size = self.seed, self.step, self.settings.batch_size
        indices_B = np.arange(size)
        rows_B = rows_of_step(seed, step, size, len(self.tokens))
        ratio = self.schedule.random_ratio(step, self.settings.steps)
        orders_BL = draw_orders(self.scan_order_L, ratio, seed=seed, step=step, indices=indices_B)
        dropped_B = dropped_labels(seed, step, size, self.model.config.class_dropout)
        seeds_B = (random_bits(seed, "masks", step, indices_B, 1)[:, 0] >> np.uint64(1)).astype(np.int64)
        arrays = (*(rows.rows(rows_B).astype(np.int64) for rows in (self.tokens, self.labels)), orders_BL, dropped_B, seeds_B)
        tokens_BL, labels_B, orders, dropped, seeds = (torch.from_numpy(array).to(self.device) for array in arrays)
        return tokens_BL, labels_B, orders, dropped, seeds, ratio

    def state(self) -> dict[str, Any]:
        """Everything that changes during training, for ``torch.save``: only tensors and plain numbers."""
        return {
            "step": self.step,
            "precision": self.precision,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Resumes from a state, with the same bits as an uninterrupted training, and in the precision in which that began."""
        if state["precision"] != self.precision:
            self._use(state["precision"])
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
