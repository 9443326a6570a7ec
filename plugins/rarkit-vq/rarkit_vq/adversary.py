"""The discriminator's part in training: when it is trained, on what, and how much it counts for the tokenizer.

Shape letters: B samples of a pass, C channels, H and W height and width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

from rarkit.errors import GridError
from rarkit_vq.discriminator import Discriminator, as_loss, at_last_layer, followed, hinge, is_trained, judged, ramp
from rarkit_vq.loss_settings import DiscriminatorSettings

ADVERSARIAL, WEIGHT = "adversarial", "adversarial_weight"


@final
class Adversary:
    """Of one training.

    In each step, the tokenizer's passes come before the discriminator's, over the same samples in the same order.
    """

    def __init__(self, settings: DiscriminatorSettings, channels: int, last_layer: nn.Module) -> None:
        """Draws the discriminator's weights from torch's generator; ``last_layer`` is that of the decoder, a convolution."""
        assert isinstance(last_layer, nn.Conv2d)
        self.settings, self._last_layer = settings, last_layer
        self.network = Discriminator(channels, settings.width, settings.layers)
        self._step = 0
        self._inputs_BCHW: Tensor | None = None
        self._made: deque[Tensor] = deque()
        self._gradients: tuple[Tensor, Tensor] | None = None
        last_layer.register_forward_hook(self._keep)

    def begin(self, step: int) -> None:
        """Before the passes of a step."""
        if step != self._step:
            self._step = step
            self._made.clear()
            self._gradients = None

    @property
    def is_trained(self) -> bool:
        """Whether this step trains the discriminator."""
        return is_trained(self.settings, self._step)

    def loss(self, images_BCHW: Tensor, error: Callable[[Tensor], Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The tokenizer's loss of reconstructions, and numbers for the log.

        Each error is differentiated at the reconstructions alone, which both gradients at the last layer follow from, and the
        backward pass computes the networks behind it no second time.

        Args:
            images_BCHW: the reconstructions, float32.
            error: their differentiable error.
        """
        if not self.is_trained:
            return error(images_BCHW), {ADVERSARIAL: images_BCHW.new_zeros(()), WEIGHT: images_BCHW.new_zeros(())}
        self._made.append(images_BCHW.detach())
        detached_BCHW = images_BCHW.detach().requires_grad_(True)
        value = error(detached_BCHW)
        (gradient_BCHW,) = torch.autograd.grad(value, detached_BCHW)
        adversarial = judged(self.network, images_BCHW)
        self._add(gradient_BCHW, adversarial.gradient_BCHW)
        weight = self.settings.weight * ramp(self.settings, self._step) * self.network.balance
        loss = as_loss(value.detach(), gradient_BCHW, images_BCHW)
        loss = loss + weight * as_loss(adversarial.loss, adversarial.gradient_BCHW, images_BCHW)
        return loss, {ADVERSARIAL: adversarial.loss, WEIGHT: weight}

    def own_loss(self, network: nn.Module, originals_BCHW: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The discriminator's loss of originals and what was made of them in this step, and its mean scores of both."""
        if not self.is_trained:
            # All weights need a gradient, for processes to share it.
            nothing = network(originals_BCHW[:1]).sum() * 0.0
            return nothing, {"of_images": nothing.detach(), "of_reconstructions": nothing.detach()}
        scores_BHW = network(torch.cat([originals_BCHW, self._made.popleft()]))
        real_BHW, fake_BHW = scores_BHW.detach().chunk(2)
        return hinge(scores_BHW), {"of_images": real_BHW.mean(), "of_reconstructions": fake_BHW.mean()}

    def stepped(self, total: Callable[[Tensor], Tensor]) -> None:
        """After a step: lets the adaptive weight follow the gradients of all passes and processes."""
        if self._gradients is None:
            return
        reconstruction, adversarial = (total(gradient) for gradient in self._gradients)
        self.network.balance.copy_(followed(self.network.balance, reconstruction, adversarial))
        self._gradients = None

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self._inputs_BCHW = inputs[0].detach() if torch.is_grad_enabled() and self.is_trained else None

    def _add(self, reconstruction_BCHW: Tensor, adversarial_BCHW: Tensor) -> None:
        assert self._inputs_BCHW is not None
        both = [
            at_last_layer(self._inputs_BCHW, self._last_layer, gradient_BCHW)
            for gradient_BCHW in (reconstruction_BCHW, adversarial_BCHW)
        ]
        before = self._gradients
        self._gradients = (both[0], both[1]) if before is None else (before[0] + both[0], before[1] + both[1])


def check_size(settings: DiscriminatorSettings, height: int, width: int) -> None:
    """Checks that images have enough pixels for the discriminator.

    Raises:
        GridError: they have not.
    """
    least = 2**settings.layers
    if min(height, width) < least:
        raise GridError(
            f"the discriminator halves images {settings.layers} times and needs sides of {least} pixels or more; these are "
            f"{height}×{width}. Lower discriminator.layers."
        )
