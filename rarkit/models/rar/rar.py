"""RAR (arXiv 2411.00776).

Shape letters: B batch, L tokens of an image, S = L + 1 entries fed to the blocks, R rows of a positional table, D width.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rarkit.attention.base import AttentionFunction
from rarkit.models.rar.config import SPARE_POSITIONS, RARConfig
from rarkit.models.rar.layers import PREFIX
from rarkit.models.rar.merged import MergedRAR
from rarkit.models.rar.transformer import OrderedTransformer
from rarkit.models.target_aware import target_aware_positions
from rarkit.registry.inputs import SEEDS, whole
from rarkit.sampling.inputs import order_of

TABLES = ("pos_embed", "target_aware_pos_embed")
"""The weights that merging replaces."""


@final
class RAR(OrderedTransformer):
    """The randomized autoregressive model. Its state dict has the names and shapes of the released checkpoints.

    Differences from the released code: orders are an argument, the unused last position is not computed, and the activation of the
    conditioning is computed once instead of in each block.
    """

    pos_embed: nn.Parameter
    target_aware_pos_embed: nn.Parameter

    def __init__(self, config: RARConfig, attention: AttentionFunction | None = None, *, seed: int | None = 0) -> None:
        """A new model on torch's default device.

        Args:
            config: the model's configuration.
            attention: the kernel; None means fused attention.
            seed: the seed of the initial weights, which are the same on every device; None leaves them uninitialised, to be loaded.
        """
        tables = TABLES if config.target_aware else TABLES[:1]
        super().__init__(config, attention, dict.fromkeys(tables, config.seq_len + SPARE_POSITIONS))
        if seed is not None and not self.pos_embed.is_meta:
            self.initialise(seed)

    def positions(self, orders_BL: Tensor) -> Tensor:
        """The entry's position plus, if target-aware, the next position to predict (RAR, section 3.3); cls predicts nothing."""
        target_RD = self.target_aware_pos_embed[0] if self.config.target_aware else None
        return target_aware_positions(orders_BL, self.pos_embed[0], target_RD, PREFIX)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Draws new weights as the released training does: σ = 0.02; zero for biases, AdaLN modulations and ``cls_token``.

        They are drawn on the CPU in the order of the state dict, so that a seed gives the same model on every device.
        """
        generator = torch.Generator().manual_seed(whole("the seed", seed, *SEEDS))
        for name, weight in self.named_parameters():
            module = self.get_submodule(name.rpartition(".")[0])
            if isinstance(module, nn.LayerNorm):
                weight.fill_(1.0 if name.endswith("weight") else 0.0)
            elif name.endswith("bias") or name == "cls_token" or "adaLN_modulation" in name:
                weight.zero_()
            else:
                # The released truncation at ±2 is at 100 σ. Inverting the CDF, as torch's trunc_normal_ long did, turns a
                # uniform draw of exactly 0 into a weight of −2; drawing and clamping does not.
                drawn = torch.empty(weight.shape, device="cpu").normal_(0.0, 0.02, generator=generator)
                weight.copy_(drawn.clamp_(-2.0, 2.0))

    @torch.no_grad()
    def merge_positions(self, order_L: Tensor) -> MergedRAR:
        """Merges both positional tables into one, for a model of this scan order only (RAR, section 3.3).

        Args:
            order_L: (L,) int64, the raster index visited at each step.

        Returns:
            A model with the same logits along ``order_L``. It shares all weights with this one, except the tables.

        Raises:
            GridError: the order does not visit each cell once.
        """
        state = {name: tensor for name, tensor in self.state_dict().items() if name not in TABLES}
        order_L = order_of(order_L, self.config.seq_len, self.pos_embed.device)
        state |= {"scan_pos_embed": self.positions(order_L)[None], "scan_order": order_L.clone()}
        with torch.device("meta"):
            merged = MergedRAR(self.config, self.attention)
        merged.load_state_dict(state, assign=True)
        return merged.train(self.training)
