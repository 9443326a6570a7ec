"""The network behind ``Classifier``: how it sees images, its layers, its use.

Shape letters: B batch, H, W, C height, width, channels of an image, F features, K classes.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from rarkit.errors import GridError, WeightsError
from rarkit.features.base import FeatureModel, Features, LearnedState

SMALLEST_SIDE = 4
"""Convolutions halve the image until neither side is longer than this."""
GROUPS = 4
WEIGHTS = "network."
"""Before the names of its weights among what ``fit`` learned."""
ROWS_AT_ONCE = 128
"""Images always pass the network in this number, blank ones added: then no result depends on how many there are."""


@final
class Network(nn.Module):
    """Convolutions with GroupNorm and GELU, halving the image; then two linear layers."""

    def __init__(self, shape_HWC: tuple[int, int, int], width: int, features: int, classes: int) -> None:
        super().__init__()
        height, width_left, channels = shape_HWC
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(GROUPS, width), nn.GELU()]
        wide = width
        while max(height, width_left) > SMALLEST_SIDE:
            wider = min(2 * wide, 4 * width)
            layers += [nn.Conv2d(wide, wider, 3, padding=1, stride=2), nn.GroupNorm(GROUPS, wider), nn.GELU()]
            height, width_left, wide = -(-height // 2), -(-width_left // 2), wider
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * height * width_left, features), nn.GELU())
        self.head = nn.Linear(features, classes)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised images to features (B, F) and logits (B, K)."""
        features_BF = self.body(images_BCHW)
        return features_BF, self.head(features_BF)


def normalised(images_BCHW: Tensor, mean_C: NDArray[np.float32], std_C: NDArray[np.float32]) -> Tensor:
    """Images (B, C, H, W) as the network takes them, float32."""
    mean_C11, std_C11 = (torch.from_numpy(values)[:, None, None].to(images_BCHW.device) for values in (mean_C, std_C))
    return (images_BCHW.float() - mean_C11) / std_C11


def shifted(images_BCHW: Tensor, moved_B2: Tensor, most: int) -> Tensor:
    """Each image as seen through a window that is moved by (rows, columns), 0 … 2·most, over the image with its edge repeated."""
    batch, _, height, width = images_BCHW.shape
    rows_BH1 = (moved_B2[:, :1] + torch.arange(height) - most).clamp(0, height - 1)[:, :, None]
    columns_B1W = (moved_B2[:, 1:] + torch.arange(width) - most).clamp(0, width - 1)[:, None, :]
    return images_BCHW.permute(0, 2, 3, 1)[torch.arange(batch)[:, None, None], rows_BH1, columns_B1W].permute(0, 3, 1, 2)


@final
class ClassifierModel(FeatureModel):
    """The trained network at work."""

    def __init__(self, state: LearnedState, device: str) -> None:
        try:
            height, width, channels = (int(side) for side in state["shape"])
            self._mean_C, self._std_C = (np.asarray(state[name], np.float32) for name in ("mean", "std"))
            first, last = state[f"{WEIGHTS}body.0.weight"], state[f"{WEIGHTS}head.weight"]
            # No initial weights are drawn, because those come from torch's shared generator.
            with torch.device("meta"):
                network = Network((height, width, channels), len(first), last.shape[1], len(last))
            network.to_empty(device="cpu")
            weights = {
                name.removeprefix(WEIGHTS): torch.tensor(np.asarray(values))
                for name, values in state.items()
                if name.startswith(WEIGHTS)
            }
            network.load_state_dict(weights)
        except (KeyError, RuntimeError) as error:
            mismatch = " ".join(str(error).split())
            raise WeightsError(f"feature extractor 'classifier' cannot load its weights: {mismatch}. Fit it again.") from error
        self._shape_HWC = height, width, channels
        self._device = device
        self._network = network.to(device).eval().requires_grad_(False)

    def __call__(self, images_BHWC: Tensor) -> Features:
        if tuple(images_BHWC.shape[1:]) != self._shape_HWC:
            raise GridError(
                "feature extractor 'classifier' was fitted on images of {}×{} with {} channels, ".format(*self._shape_HWC)
                + "not {}×{} with {}. Fit it on images of this size.".format(*images_BHWC.shape[1:])
            )
        parts = [self._fixed_batch(part_BHWC) for part_BHWC in torch.split(images_BHWC, ROWS_AT_ONCE)]
        features, logits = zip(*parts, strict=True)
        return Features(torch.cat(features), torch.cat(logits))

    def _fixed_batch(self, images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        count = len(images_BHWC)
        padded_BHWC = functional.pad(images_BHWC.to(self._device), (0, 0, 0, 0, 0, 0, 0, ROWS_AT_ONCE - count))
        images_BCHW = normalised(padded_BHWC.permute(0, 3, 1, 2).contiguous(), self._mean_C, self._std_C)
        features_BF, logits_BK = self._network(images_BCHW)
        return features_BF[:count], logits_BK[:count]
