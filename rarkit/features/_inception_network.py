"""Inception-v3 of 2015, in which FID is defined, layer for layer as TensorFlow's graph computes it.

Names of modules are those of the weights that pytorch-fid published, so that its file loads.

Shape letters: B batch, C channels, H, W height, width, O output size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 299
CLASSES = 1008
FEATURES = 2048
SPATIAL_CHANNELS = 7
"""The ADM evaluator's spatial features are the first 7 channels of a layer of 17 × 17."""


@final
class Conv(NamedTuple):
    """A convolution: without padding where it strides, else keeping the size."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


@final
class Fork(NamedTuple):
    """Convolutions of one input, side by side."""

    ways: tuple[Conv, ...]


Path = Sequence[Conv | Fork]


@final
class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, channels: int, wider: int, kernel: tuple[int, int], *, stride: int = 1, padded: bool) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(channels, wider, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(wider, eps=0.001)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, wider, H, W)."""
        return functional.relu(self.bn(self.conv(images_BCHW)), inplace=True)


def mean_pool(images_BCHW: Tensor) -> Tensor:
    """3 × 3, keeping the size; at the edge TensorFlow's mean is over the pixels that are there."""
    return functional.avg_pool2d(images_BCHW, 3, stride=1, padding=1, count_include_pad=False)


def max_pool(images_BCHW: Tensor) -> Tensor:
    """3 × 3, keeping the size."""
    return functional.max_pool2d(images_BCHW, 3, stride=1, padding=1)


def halving_pool(images_BCHW: Tensor) -> Tensor:
    """3 × 3, halving the size."""
    return functional.max_pool2d(images_BCHW, 3, stride=2)


@final
class Mixed(nn.Module):
    """Paths side by side, their channels joined; the last one pools, and is projected unless ``projected`` is None."""

    def __init__(
        self,
        channels: int,
        paths: Sequence[Path],
        projected: int | None,
        pool: Callable[[Tensor], Tensor] = mean_pool,
    ) -> None:
        super().__init__()
        self.paths, self.pool = paths, pool
        for path in paths:
            width = channels
            for step in path:
                ways = _ways(step)
                for way in ways:
                    padded = way.stride == 1
                    self.add_module(way.name, Convolution(width, way.channels, way.kernel, stride=way.stride, padded=padded))
                width = sum(way.channels for way in ways)
        self.branch_pool = None if projected is None else Convolution(channels, projected, (1, 1), padded=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to (B, channels of all paths, H, W)."""
        parts = []
        for path in self.paths:
            seen = images_BCHW
            for step in path:
                seen = torch.cat([self.get_submodule(way.name)(seen) for way in _ways(step)], 1)
            parts.append(seen)
        pooled = self.pool(images_BCHW)
        return torch.cat([*parts, pooled if self.branch_pool is None else self.branch_pool(pooled)], 1)


def _ways(step: Conv | Fork) -> tuple[Conv, ...]:
    return step.ways if isinstance(step, Fork) else (step,)


def fine(pooled: int) -> tuple[list[Path], int]:
    """Paths at 35 × 35."""
    small = [Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, (5, 5))]
    double = [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3))]
    return [[Conv("branch1x1", 64)], small, double], pooled


def factored(width: int) -> tuple[list[Path], int]:
    """Paths at 17 × 17: 7 × 7 as 1 × 7 and 7 × 1."""
    once = [Conv("branch7x7_1", width), Conv("branch7x7_2", width, (1, 7)), Conv("branch7x7_3", 192, (7, 1))]
    kernels = ((7, 1), (1, 7), (7, 1), (1, 7))
    channels = (width, width, width, 192)
    more = zip(range(2, 6), channels, kernels, strict=True)
    twice = [Conv("branch7x7dbl_1", width), *(Conv(f"branch7x7dbl_{index}", wide, kernel) for index, wide, kernel in more)]
    return [[Conv("branch1x1", 192)], once, twice], 192


def forked() -> tuple[list[Path], int]:
    """Paths at 8 × 8: 3 × 3 as 1 × 3 beside 3 × 1."""

    def fork(name: str) -> Fork:
        return Fork((Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))))

    double: Path = [Conv("branch3x3dbl_1", 448), Conv("branch3x3dbl_2", 384, (3, 3)), fork("branch3x3dbl_3")]
    return [[Conv("branch1x1", 320)], [Conv("branch3x3_1", 384), fork("branch3x3_2")], double], 192


TO_17: list[Path] = [
    [Conv("branch3x3", 384, (3, 3), 2)],
    [Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, (3, 3)), Conv("branch3x3dbl_3", 96, (3, 3), 2)],
]
TO_8: list[Path] = [
    [Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, (3, 3), 2)],
    [
        Conv("branch7x7x3_1", 192),
        Conv("branch7x7x3_2", 192, (1, 7)),
        Conv("branch7x7x3_3", 192, (7, 1)),
        Conv("branch7x7x3_4", 192, (3, 3), 2),
    ],
]


@final
class InceptionNetwork(nn.Module):
    """Szegedy et al., "Rethinking the Inception Architecture", 2015, without the auxiliary classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, (3, 3), stride=2, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, (3, 3), padded=True)
        self.Conv2d_3b_1x1 = Convolution(64, 80, (1, 1), padded=False)
        self.Conv2d_4a_3x3 = Convolution(80, 192, (3, 3), padded=False)
        self.Mixed_5b = Mixed(192, *fine(32))
        self.Mixed_5c = Mixed(256, *fine(64))
        self.Mixed_5d = Mixed(288, *fine(64))
        self.Mixed_6a = Mixed(288, TO_17, None, halving_pool)
        self.Mixed_6b = Mixed(768, *factored(128))
        self.Mixed_6c = Mixed(768, *factored(160))
        self.Mixed_6d = Mixed(768, *factored(160))
        self.Mixed_6e = Mixed(768, *factored(192))
        self.Mixed_7a = Mixed(768, TO_8, None, halving_pool)
        self.Mixed_7b = Mixed(1280, *forked())
        # This graph takes a maximum here, where the paper has a mean.
        self.Mixed_7c = Mixed(2048, *forked(), max_pool)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the ADM evaluator takes from the graph.

        Args:
            images_BCHW: (B, 3, H, W) float32, 0 to 255, of any size.

        Returns:
            ``pool_3`` (B, 2048); the first 7 channels of ``mixed_6/conv`` as (B, 17 · 17 · 7), channels last; and class scores
            (B, 1008) without the bias, which the evaluator leaves out.
        """
        seen = (resized(images_BCHW, SIDE) - 128.0) / 128.0
        seen = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(seen)))
        seen = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(halving_pool(seen)))
        seen = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(halving_pool(seen))))
        seen = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(seen))))
        # TensorFlow's mixed_6 is this block, and its first path, mixed_6/conv, gives the first channels.
        spatial = seen[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)
        seen = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(seen))))
        features = seen.mean((2, 3))
        return features, spatial, features @ self.fc.weight.T

    def initialise(self, seed: int) -> InceptionNetwork:
        """Random weights that keep the scale of what passes through, for rehearsals."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for part in self.modules():
                if isinstance(part, (nn.Conv2d, nn.Linear)):
                    part.weight.normal_(0.0, (2.0 / part.weight[0].numel()) ** 0.5, generator=generator)
                if isinstance(part, nn.Linear):
                    part.bias.zero_()
                if isinstance(part, nn.BatchNorm2d):
                    part.reset_parameters()
        return self


def resized(images_BCHW: Tensor, side: int) -> Tensor:
    """Bilinear as TensorFlow 1 does it: pixel i of the output lies at i · input / output, whether it shrinks or grows."""
    for axis in (2, 3):
        size = images_BCHW.shape[axis]
        place_O = torch.arange(side, device=images_BCHW.device, dtype=torch.float32) * (size / side)
        below_O = place_O.long().clamp(max=size - 1)
        above_O = (below_O + 1).clamp(max=size - 1)
        share_O = (place_O - below_O).reshape((side, 1) if axis == 2 else (side,))
        below, above = images_BCHW.index_select(axis, below_O), images_BCHW.index_select(axis, above_O)
        images_BCHW = below + (above - below) * share_O
    return images_BCHW
