"""The passes of training on a GPU: as large as its memory allows, where the recipe does not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.engine.degrees import degrees
from rarkit.engine.memory import advice
from rarkit.engine.settings import TrainSettings
from rarkit.errors import CapabilityError
from rarkit.models.base import ModelCosts
from rarkit.runtime.machine import auto_precision
from rarkit.runtime.ranks import Ranks
from rarkit.training.memory import USABLE, in_words, largest_micro_batch, training_memory


@final
@dataclass(frozen=True)
class Passes:
    """The passes of a training on this machine, by estimate."""

    settings: TrainSettings
    costs: ModelCosts
    keeps_weights: bool
    """Whether attention saves all its weights for the backward pass."""
    device: str
    ranks: Ranks

    def most(self) -> int | None:
        """The most images of a pass that the memory of each process holds; None on a CPU, and if the recipe says how many.

        All ranks must call it.

        Raises:
            CapabilityError: not even one image fits.
            RecipeError: the batch cannot be divided among the processes.
        """
        if self.settings.micro_batch_size is not None or not self.device.startswith("cuda"):
            return None
        free = self._free()
        own = largest_micro_batch(
            self.settings, self.costs, self.ranks.size, free, precision=self._precision, keeps_weights=self.keeps_weights
        )
        if own is None:
            raise CapabilityError(
                f"{self.device} has {free / 1e9:.1f} GB free, of which {USABLE:.0%} are used, but training needs {self._needs(1)}, "
                f"even with one image per pass. {self._advice(1)}. This is an estimate: train.micro_batch_size = 1 tries it all "
                "the same."
            )
        everyone = self.ranks.gathered(own)
        return self.ranks.told(lambda: min(everyone))

    def _free(self) -> int:
        import torch

        # What earlier stages left in torch's cache is free, too.
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self.device)[0]

    @property
    def _precision(self) -> str:
        return auto_precision(self.device) if self.settings.precision == "auto" else self.settings.precision

    def _needs(self, micro: int) -> str:
        divided = degrees(self.settings, self.ranks.size, micro)
        return in_words(
            training_memory(self.settings, self.costs, divided, precision=self._precision, keeps_weights=self.keeps_weights)
        )

    def _advice(self, micro: int) -> str:
        ways = advice(self.settings, degrees(self.settings, self.ranks.size, micro))
        return ways[0].upper() + ways[1:]
