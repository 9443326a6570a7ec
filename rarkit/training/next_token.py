"""Next-token prediction along permuted orders: the task by which generators are trained (RAR, section 3.2).

Shape letters: B samples of a batch, L tokens of an image, V codebook size, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rarkit.engine.degrees import Degrees
from rarkit.engine.settings import TrainSettings
from rarkit.engine.task import Losses, Task
from rarkit.errors import PluginError
from rarkit.models.base import ModelCosts
from rarkit.models.image_model import ImageModel
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.permutation_schedules.draw import draw_orders
from rarkit.randomness import random_bits
from rarkit.registry.contract import origin
from rarkit.training.batches import dropped_labels, rows_of_step
from rarkit.training.memory import in_words, training_memory

MODEL = "model"
"""The network's name."""
SHOWN_ROWS = 8


class Rows(Protocol):
    """Rows of a stored array, by index; the cache's reader implements it."""

    def __len__(self) -> int: ...

    def rows(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows (B, …) at ``indices`` (B,)."""
        ...


@final
class NextToken(Task):
    """Cross-entropy in nats per token, and the share of tokens that are the likeliest one (``accuracy``)."""

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
        costs: ModelCosts | None = None,
        keeps_weights: bool = False,
    ) -> None:
        """The training of a model.

        Args:
            model: trained in place.
            tokens: (N, L) raster grids of codes.
            labels: (N,) classes in [0, C).
            settings: the recipe's ``[train]``.
            seed: the run's seed; batches, permutations, dropped classes and masks depend on it, the step and the sample's index.
            scan_order_L: (L,) int64, the raster index visited at each step of samples that are not permuted.
            schedule: the random ratio over training.
            costs: of the model, for what is said of speed and memory; None if unknown.
            keeps_weights: whether attention saves all its weights for the backward pass.
        """
        self.model, self.networks = model, {MODEL: model}
        self.tokens, self.labels, self.settings, self.seed = tokens, labels, settings, seed
        self.scan_order_L, self.schedule = scan_order_L, schedule
        self._costs, self._keeps_weights = costs, keeps_weights

    def blocks(self, name: str) -> Sequence[nn.Module]:
        return self.model.repeated

    def batch(self, step: int, indices_B: NDArray[np.int64]) -> dict[str, Tensor]:
        seed, size = self.seed, self.settings.batch_size
        rows_B = self._rows(step)[indices_B]
        orders_BL = draw_orders(self.scan_order_L, self.numbers(step)["random_ratio"], seed=seed, step=step, indices=indices_B)
        seeds_B = (random_bits(seed, "masks", step, indices_B, 1)[:, 0] >> np.uint64(1)).astype(np.int64)
        arrays = {
            "tokens": self.tokens.rows(rows_B).astype(np.int64),
            "labels": self.labels.rows(rows_B).astype(np.int64),
            "orders": orders_BL,
            "dropped": dropped_labels(seed, step, size, self.model.config.class_dropout)[indices_B],
            "mask_seeds": seeds_B,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def loss(self, name: str, network: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
        tokens_BL, orders_BL = batch["tokens"], batch["orders"]
        logits_BLV = network(
            tokens_BL,
            batch["labels"],
            orders_BL,
            dropped_B=batch["dropped"],
            mask_seeds_B=batch["mask_seeds"],
            checkpointing=int(self.settings.activation_checkpointing),
        )
        # Otherwise logits of too many codes would be trained without a word.
        expected = *tokens_BL.shape, self.model.config.codebook_size
        if logits_BLV.shape != expected:
            raise PluginError(
                f"the model {origin(type(self.model))} returns logits {tuple(logits_BLV.shape)}; they must be {expected}. Choose "
                "another [model], or correct this one."
            )
        targets_BL = tokens_BL.gather(1, orders_BL)
        loss = functional.cross_entropy(logits_BLV.flatten(0, 1).float(), targets_BL.flatten())
        return Losses(loss, {"accuracy": (logits_BLV.detach().argmax(-1) == targets_BL).float().mean()})

    def numbers(self, step: int) -> dict[str, float]:
        return {"random_ratio": self.schedule.random_ratio(step, self.settings.steps)}

    def flops(self, samples: int) -> int | None:
        return None if self._costs is None else self._costs.step_flops(samples, checkpointing=False)

    def memory(self, degrees: Degrees, precision: str) -> str | None:
        if self._costs is None:
            return None
        return in_words(
            training_memory(self.settings, self._costs, degrees, precision=precision, keeps_weights=self._keeps_weights)
        )

    def describe(self, step: int) -> str:
        rows = self._rows(step)
        more = ", …" if len(rows) > SHOWN_ROWS else ""
        return f"rows {', '.join(map(str, rows[:SHOWN_ROWS].tolist()))}{more} of the tokens (rarkit.training.rows_of_step)"

    def check(self, batch: Mapping[str, Tensor]) -> None:
        """Raises PluginError if the attention kernel computes something else than attention."""
        self.model.check_attention(batch["tokens"], batch["labels"], batch["orders"])

    def _rows(self, step: int) -> NDArray[np.int64]:
        return rows_of_step(self.seed, step, self.settings.batch_size, len(self.tokens))
