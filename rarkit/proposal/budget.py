"""How the minutes that there are get divided, and how fast this machine is taken to be where nothing is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from rarkit.datasets.workers import usable_workers
from rarkit.runtime.machine import here

LONG_MINUTES, LONG_MINUTES_OF_GPU = 120, 20
"""From which on a convolutional tokenizer is trained from nothing: before that, one that starts as k-means is better."""
LEFT = 0.5
"""Share of the time that is planned with, however long the reading of the images takes."""
STARTING = 15.0
"""Seconds in which a run starts, loads its libraries, writes its report, and reads images for the first time."""
COMPARING = 10.0
"""Seconds in which an evaluation loads its libraries, compares distributions, and draws the halves for its intervals."""


@final
@dataclass(frozen=True)
class Budget:
    """Time, and a machine."""

    minutes: float
    device: str
    """``"cpu"`` or ``"cuda"``."""
    learned: bool
    """Whether the tokenizer ``vq`` of the plugin rarkit-vq is there."""
    reading: float = 0.0
    """Seconds in which the images are read."""

    @property
    def seconds(self) -> float:
        """What is left when the images are read."""
        return max(LEFT * 60 * self.minutes, 60 * self.minutes - self.reading - STARTING)

    @property
    def is_long(self) -> bool:
        """Whether a convolutional tokenizer can be trained from nothing."""
        return self.minutes >= (LONG_MINUTES_OF_GPU if self.device == "cuda" else LONG_MINUTES)

    @property
    def for_tokenizer(self) -> float:
        """Seconds to learn the tokenizer."""
        return (0.45 if self.learned else 0.15) * self.seconds

    @property
    def for_training(self) -> float:
        """Seconds to train the model."""
        return (0.35 if self.learned else 0.6) * self.seconds

    @property
    def for_sampling(self) -> float:
        """Seconds to draw samples."""
        return 0.05 * self.seconds

    @property
    def for_features(self) -> float:
        """Seconds to train the classifier in whose features images are compared."""
        return 0.08 * self.seconds

    @staticmethod
    def here(minutes: float, images: int, seconds_each: float, *, learned: bool) -> Budget:
        """On this machine, for so many images that take a processor so long to read.

        They are read three times: to find damaged ones, to learn the tokenizer, and to encode them.
        """
        return Budget(minutes, here(), learned, 3 * images * seconds_each / usable_workers())
