"""The passes of training: on a GPU as large as its memory allows, where the recipe does not say; on a CPU, whether they fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

from rarkit.engine.degrees import degrees
from rarkit.engine.memory import advice
from rarkit.engine.settings import TrainSettings
from rarkit.errors import CapabilityError, RarkitWarning
from rarkit.models.base import ModelCosts
from rarkit.runtime.machine import auto_precision, host_memory
from rarkit.runtime.ranks import Ranks
from rarkit.runtime.signals import local_world_size
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

        All ranks must call it. Warns of ``shortage``.

        Raises:
            CapabilityError: not even one image fits.
            RecipeError: the batch cannot be divided among the processes.
        """
        if self.ranks.first and (shortage := self.shortage()) is not None:
            warnings.warn(RarkitWarning(f"train: {shortage}"), stacklevel=2)
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

    def shortage(self) -> str | None:
        """On a CPU, why the machine's memory does not suffice by estimate, and the cure; None if it does, and on a GPU.

        The system kills what takes too much, without a word. Estimates are up to a third too high, so this is a warning.
        """
        if self.device.startswith("cuda"):
            return None
        divided, local, memory = degrees(self.settings, self.ranks.size, None), local_world_size(), host_memory()
        how: dict[str, Any] = {"precision": self._precision, "keeps_weights": self.keeps_weights}
        needed = training_memory(self.settings, self.costs, divided, **how)
        if needed.total * local <= memory:
            return None
        most = largest_micro_batch(self.settings, self.costs, self.ranks.size, memory / local, **how)
        fits = most is not None and most < divided.micro
        cure = f"Set train.micro_batch_size = {most} (a pass has {divided.micro:,} images)" if fits else self._advice(divided.micro)
        each = "training" if local == 1 else f"each of {local} processes"
        here = f"This machine has {memory / 1e9:.1f} GB, so the system may kill it"
        return f"by estimate, {each} needs {in_words(needed)}. {here}. {cure}."

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
