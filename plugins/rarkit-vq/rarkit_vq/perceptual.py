"""LPIPS, a distance of images in the features of a VGG16 network (Zhang et al., arXiv 1801.03924): the published version 0.1.

The networks are written here because the package ``lpips`` needs torchvision, which does not import beside every build of torch.

Shape letters: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import torch
from torch import Tensor, nn

from rarkit.errors import GridError
from rarkit.tokenizers import load_network

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of VGG16's convolutions (Simonyan and Zisserman, arXiv 1409.1556), from one pooling to the next."""
SMALLEST = 2 ** (len(STAGES) - 1)
"""Pixels of a side, of which the last stage has one left."""
MEAN, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of each channel, in images from -1 to 1, by LPIPS."""
LEAST_NORM = 1e-10
CLASSIFIER = tuple(f"classifier.{layer}.{what}" for layer in (0, 3, 6) for what in ("weight", "bias"))
"""Tensors of VGG16's file that its features do not need."""
VGG, LINEAR = "vgg16-397923af.pth", "vgg.pth"


@final
class VGG16(nn.Module):
    """VGG16 up to its last convolution, with the tensor names of torchvision's file."""

    def __init__(self, stages: Iterable[Iterable[int]] = STAGES) -> None:
        """``stages``: channels of the convolutions of each stage; others than those of VGG16 are for tests."""
        super().__init__()
        layers: list[nn.Module] = []
        ends: list[int] = []
        channels = 3
        for stage in stages:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            ends.append(len(layers))
        self.features = nn.Sequential(*layers)
        self._ends = ends

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Three channels to the features of each stage, (B, C, H, W) each."""
        found: list[Tensor] = []
        begin = 0
        x_BCHW = images_BCHW
        for end in self._ends:
            x_BCHW = self.features[begin:end](x_BCHW)
            found.append(x_BCHW)
            begin = end
        return found


@final
class Linear(nn.Module):
    """The weights of each stage's channels, with the tensor names of LPIPS' file, which has a dropout before each."""

    def __init__(self, widths: Iterable[int]) -> None:
        super().__init__()
        for number, width in enumerate(widths):
            weights = nn.Module()
            weights.model = nn.Sequential(nn.Identity(), nn.Conv2d(width, 1, 1, bias=False))
            self.add_module(f"lin{number}", weights)


@final
class Perceptual:
    """The distance, differentiable, in float32 whatever autocast does around it: of images that are nearly alike, the features are
    too, and rounding would be their difference."""

    def __init__(self, vgg: VGG16, linear: Linear) -> None:
        """Networks with their weights; those are never trained."""
        self._vgg = vgg.eval().requires_grad_(False)
        layers = [layer for layer in linear.modules() if isinstance(layer, nn.Conv2d)]
        self._weights = [layer.weight.detach().clone() for layer in layers]
        self._mean_C11, self._scale_C11 = (torch.tensor(values)[:, None, None] for values in (MEAN, SCALE))

    def __call__(self, images_BCHW: Tensor, originals_BCHW: Tensor) -> Tensor:
        """Distances (B,) of images, (B, C, H, W) from -1 to 1 with one channel or three, from their originals.

        Gradients pass to ``images_BCHW`` alone. The networks follow the images to their device.
        """
        self._to(images_BCHW.device)
        with torch.autocast(images_BCHW.device.type, enabled=False):
            with torch.no_grad():
                expected = self._features(originals_BCHW.float())
            found = self._features(images_BCHW.float())
            distances_B = images_BCHW.new_zeros(len(images_BCHW), dtype=torch.float32)
            for one_BCHW, other_BCHW, weights_1C11 in zip(found, expected, self._weights, strict=True):
                squared_BCHW = (one_BCHW - other_BCHW).square()
                distances_B = distances_B + (squared_BCHW * weights_1C11).sum(1).mean((1, 2))
        return distances_B

    def _features(self, images_BCHW: Tensor) -> list[Tensor]:
        scaled_BCHW = (images_BCHW - self._mean_C11) / self._scale_C11
        return [_unit(x_BCHW) for x_BCHW in self._vgg(scaled_BCHW)]

    def _to(self, device: torch.device) -> None:
        if self._mean_C11.device == device:
            return
        self._vgg.to(device)
        self._weights = [weights.to(device) for weights in self._weights]
        self._mean_C11, self._scale_C11 = self._mean_C11.to(device), self._scale_C11.to(device)


def _unit(x_BCHW: Tensor) -> Tensor:
    """Each place's channels, scaled to a length of 1."""
    # The square root has no gradient at 0, where all channels are: without the least number, it would be NaN.
    norm_B1HW = x_BCHW.square().sum(1, keepdim=True).clamp_min(LEAST_NORM**2).sqrt()
    return x_BCHW / (norm_B1HW + LEAST_NORM)


def load_perceptual(vgg: str, linear: str) -> Perceptual:
    """The distance with the weights of two files.

    Args:
        vgg: torchvision's ``vgg16-397923af.pth``.
        linear: LPIPS' ``vgg.pth``, version 0.1.

    Raises:
        WeightsError: a file is missing, damaged, or another.
    """
    with torch.device("meta"):
        features, layers = VGG16(), Linear(stage[-1] for stage in STAGES)
    load_network(features, vgg, cure=f"Is it torchvision's {VGG}?", unused=CLASSIFIER)
    load_network(layers, linear, cure=f"Is it LPIPS' {LINEAR}, of version 0.1?")
    return Perceptual(features, layers)


def check_size(height: int, width: int) -> None:
    """Checks that images have enough pixels for the network.

    Raises:
        GridError: they have not.
    """
    if min(height, width) < SMALLEST:
        raise GridError(
            f"the perceptual loss halves images four times and needs sides of {SMALLEST} pixels or more; these are "
            f"{height}×{width}. Leave tokenizer.perceptual out, or choose a larger size in [dataset]."
        )
