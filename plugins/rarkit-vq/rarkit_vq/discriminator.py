"""A discriminator of patches (Isola et al., arXiv 1611.07004), and how much it counts (Esser et al., arXiv 2012.09841).

Shape letters: B batch, C channels, H and W height and width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from rarkit_vq._layers import conv, norm
from rarkit_vq.loss_settings import DiscriminatorSettings

SLOPE = 0.2
"""Of the leaky rectifier below 0."""
MOST_CHANNELS = 8
"""Channels of the last layers, as a multiple of the width."""
LEAST_GRADIENT, MOST_WEIGHT = 1e-6, 1e4
"""Bounds of the adaptive weight: what is added to the gradient that it divides by, and the largest."""
FOLLOWS = 0.1
"""By how much the adaptive weight follows the last step's."""


@final
class Discriminator(nn.Module):
    """Tells images from reconstructions, patch by patch. It is computed in float32, whatever autocast does around it."""

    balance: Tensor
    """How much larger the gradient of the reconstruction error is than the adversarial loss', at the decoder's last layer."""

    def __init__(self, channels: int, width: int, layers: int) -> None:
        """``layers``: convolutions that halve height and width, each with twice the channels of the one before, up to a bound."""
        super().__init__()
        widths = [width * min(2**layer, MOST_CHANNELS) for layer in range(layers + 1)]
        body: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
        for before, after in pairwise(widths[:-1]):
            body += [nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False), norm(after), nn.LeakyReLU(SLOPE)]
        body += [conv(widths[-2], widths[-1]), norm(widths[-1]), nn.LeakyReLU(SLOPE), conv(widths[-1], 1)]
        self.body = nn.Sequential(*body)
        self.register_buffer("balance", torch.zeros(()))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images from -1 to 1 to a number for each patch, (B, H, W): above 0 where they seem to be images."""
        with torch.autocast(images_BCHW.device.type, enabled=False):
            scores_B1HW: Tensor = self.body(images_BCHW.float())
        return scores_B1HW[:, 0]


@final
class Judged(NamedTuple):
    """The adversarial loss of reconstructions."""

    loss: Tensor
    """Minus their mean score."""
    gradient_BCHW: Tensor
    """Its gradient at the reconstructions."""


def hinge(scores_BHW: Tensor) -> Tensor:
    """The discriminator's loss (Lim and Ye, arXiv 1705.02894) of scores whose first half are those of images, whose second half are
    those of reconstructions."""
    real_BHW, fake_BHW = scores_BHW.chunk(2)
    return (functional.relu(1 - real_BHW).mean() + functional.relu(1 + fake_BHW).mean()) / 2


def judged(discriminator: nn.Module, images_BCHW: Tensor) -> Judged:
    """The adversarial loss of reconstructions; the discriminator's weights get no gradients."""
    detached_BCHW = images_BCHW.detach().requires_grad_(True)
    loss = -discriminator(detached_BCHW).mean()
    (gradient_BCHW,) = torch.autograd.grad(loss, detached_BCHW)
    return Judged(loss.detach(), gradient_BCHW)


def as_loss(value: Tensor, gradient_BCHW: Tensor, images_BCHW: Tensor) -> Tensor:
    """A loss with this value, and this gradient at images: for what has been differentiated down to them already."""
    product = (gradient_BCHW * images_BCHW).sum()
    return value + product - product.detach()


def at_last_layer(inputs_BCHW: Tensor, layer: nn.Conv2d, gradient_BCHW: Tensor) -> Tensor:
    """The gradient of a loss at the weights of the decoder's last layer, as float32.

    Args:
        inputs_BCHW: what went into the layer.
        layer: of padding (1, 1) and stride 1.
        gradient_BCHW: that of the loss at what came out.
    """
    shape, padding = layer.weight.shape, layer.padding
    assert isinstance(padding, tuple)
    assert padding[0] == padding[1], padding
    with torch.autocast(inputs_BCHW.device.type, enabled=False):
        gradient: Tensor = conv2d_weight(inputs_BCHW.detach().float(), shape, gradient_BCHW.float(), padding=padding[0])
    return gradient


def followed(balance: Tensor, reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """The next adaptive weight: the ratio of the norms of two gradients, averaged over about ten steps; the first as it is."""
    ratio = (reconstruction.norm() / (adversarial.norm() + LEAST_GRADIENT)).clamp(max=MOST_WEIGHT)
    return torch.where(balance == 0, ratio, balance.lerp(ratio, FOLLOWS))


def ramp(settings: DiscriminatorSettings, step: int) -> float:
    """The share of its weight that the adversarial loss has in a step: 0 until ``start_step``, then rising to 1."""
    return min(1.0, max(0.0, (step - settings.start_step + 1) / settings.ramp_steps))


def is_trained(settings: DiscriminatorSettings, step: int) -> bool:
    """Whether the discriminator is trained in a step: from ``ahead_steps`` before its loss counts."""
    return step >= settings.start_step - settings.ahead_steps
