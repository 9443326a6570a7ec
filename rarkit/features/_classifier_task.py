"""How the network behind ``Classifier`` is trained.

Shape letters: N training images, B batch, H, W, C height, width, channels of an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rarkit.engine.learning import Learning
from rarkit.engine.settings import TrainSettings
from rarkit.engine.task import Losses, Task
from rarkit.features._classifier_network import WEIGHTS, Network, normalised, shifted
from rarkit.features.base import LearnedState
from rarkit.images import ImageBlock
from rarkit.randomness import derived_seed, uniforms
from rarkit.runtime.ranks import ALONE

NETWORK = "network"


@final
@dataclass(frozen=True)
class Shape:
    """What the network is like, and what it sees."""

    width: int
    """Channels of the first convolution."""
    features: int
    """F, the width of the last hidden layer."""
    shift: int
    """Largest shift of an image, in pixels."""


def trained(shape: Shape, settings: TrainSettings, images: ImageBlock, seed: int, learning: Learning) -> LearnedState:
    """Trains a network; see ``Classifier.learn``."""
    pixels = images.images_NHWC.reshape(-1, images.images_NHWC.shape[-1])
    mean_C = pixels.mean(0, dtype=np.float64).astype(np.float32)
    # A channel without contrast stays at 0 instead of being divided by nothing.
    std_C = np.maximum(pixels.std(0, dtype=np.float64), 1.0).astype(np.float32)
    here = dataclasses.replace(learning, device="cpu", ranks=ALONE)
    with _own_randomness(derived_seed(seed, "classifier")), torch.inference_mode(False), torch.enable_grad():
        task = ClassifierTask(shape, images, seed, mean_C, std_C)
        state = here.train(task, settings, seed=seed, title="classifier").weights[NETWORK]
    weights = {f"{WEIGHTS}{name}": values.numpy() for name, values in state.items()}
    return {"shape": np.array(images.images_NHWC.shape[1:], np.float32), "mean": mean_C, "std": std_C, **weights}


@final
class ClassifierTask(Task):
    """Cross-entropy of the classes, in nats, of images that are shifted at random."""

    def __init__(
        self, shape: Shape, images: ImageBlock, seed: int, mean_C: NDArray[np.float32], std_C: NDArray[np.float32]
    ) -> None:
        """A new network, its weights drawn from torch's generator."""
        _, height, width, channels = images.images_NHWC.shape
        classes = int(images.labels_N.max()) + 1
        self.networks = {NETWORK: Network((height, width, channels), shape.width, shape.features, classes)}
        self.shape, self.seed, self.mean_C, self.std_C = shape, seed, mean_C, std_C
        self.images_NCHW = torch.from_numpy(images.images_NHWC).permute(0, 3, 1, 2).contiguous()
        self.labels_N = torch.from_numpy(images.labels_N)

    def batch(self, step: int, indices_B: NDArray[np.int64]) -> dict[str, Tensor]:
        chance_B3 = uniforms(self.seed, "classifier batch", step, indices_B, 3)
        rows_B = torch.from_numpy((chance_B3[:, 0] * len(self.labels_N)).astype(np.int64))
        moved_B2 = torch.from_numpy((chance_B3[:, 1:] * (2 * self.shape.shift + 1)).astype(np.int64))
        images_BCHW = shifted(normalised(self.images_NCHW[rows_B], self.mean_C, self.std_C), moved_B2, self.shape.shift)
        return {"images": images_BCHW, "labels": self.labels_N[rows_B]}

    def loss(self, name: str, network: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
        return Losses(functional.cross_entropy(network(batch["images"])[1], batch["labels"]))


@contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Seeds torch's generator and limits it to one thread (one order of summation); restores both on exit."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
