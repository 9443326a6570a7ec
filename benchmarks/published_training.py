"""The baseline of ``training.py``: the forward pass of training as the paper and its configuration describe it.

Written from the description: positions are looked up for each sample, attention is given a mask tensor, the last entry of the
sequence is computed and thrown away, each block activates the conditioning of each sample anew, and dropout is torch's. It uses the
weights of a ``RAR``, so that both can be compared.

Shape letters: B batch, L tokens of an image, S = L + 2 entries (cls, class, x_1 … x_L), D width, V codebook size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit.models import RAR
from rarkit.models.rar.layers import Block


class PublishedTraining(nn.Module):
    """Logits (B, L, V) of teacher forcing with the weights of a model."""

    def __init__(self, model: RAR) -> None:
        super().__init__()
        self.model, config = model, model.config
        seen = torch.ones(config.seq_len + 2, config.seq_len + 2).tril()
        self.register_buffer("mask", torch.zeros_like(seen).masked_fill(seen == 0, float("-inf")), persistent=False)

    def forward(self, tokens_BL: Tensor, labels_B: Tensor, orders_BL: Tensor) -> Tensor:
        """Tokens in raster order, classes, and orders (B, L) int64 for each sample."""
        model, batch = self.model, len(tokens_BL)
        class_ids_B = model.class_ids(labels_B)
        visited_BL = tokens_BL.gather(1, orders_BL)
        embedded_BSD = model.embeddings(torch.cat([class_ids_B[:, None], visited_BL], dim=1))
        x_BSD = torch.cat([model.cls_token.expand(batch, -1, -1), embedded_BSD], dim=1) + self._positions(orders_BL)
        steps_BSD = model.timesteps_embeddings[:, : x_BSD.shape[1]].expand(batch, -1, -1)
        condition_BSD = model.embeddings(class_ids_B)[:, None] + steps_BSD
        for block in model.layers:
            x_BSD = self._block(block, x_BSD, condition_BSD)
        final = model.adaln_before_head
        scale_BSD, shift_BSD = final.adaLN_modulation(condition_BSD).chunk(2, dim=-1)
        logits_BSV: Tensor = model.lm_head(final.norm_final(x_BSD) * (1 + scale_BSD) + shift_BSD)
        return logits_BSV[:, 1:-1]

    def _positions(self, orders_BL: Tensor) -> Tensor:
        own, target = (table.expand(len(orders_BL), -1, -1) for table in (self.model.pos_embed, self.model.target_aware_pos_embed))
        places_BLD = (orders_BL + 2)[..., None].expand(-1, -1, own.shape[2])
        own_BSD = torch.cat([own[:, :2], own.gather(1, places_BLD)], dim=1)
        target_BLD = target.gather(1, places_BLD)
        return own_BSD + torch.cat([torch.zeros_like(own_BSD[:, :1]), target_BLD, torch.zeros_like(own_BSD[:, :1])], dim=1)

    def _block(self, block: Block, x_BSD: Tensor, condition_BSD: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = block.adaLN_modulation(condition_BSD).chunk(6, dim=-1)
        x_BSD = x_BSD + gate1 * self._attention(block, block.norm1(x_BSD) * (1 + scale1) + shift1)
        mlp, rate = block.mlp, self.model.config.dropout
        hidden_BSH = functional.dropout(functional.gelu(mlp.fc1(block.norm2(x_BSD) * (1 + scale2) + shift2)), rate)
        return x_BSD + gate2 * functional.dropout(mlp.fc2(hidden_BSH), rate)

    def _attention(self, block: Block, x_BSD: Tensor) -> Tensor:
        layer, config = block.attn, self.model.config
        q, k, v = layer.qkv(x_BSD).unflatten(-1, (3, config.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # The norms of queries and keys are float32 under autocast.
        q, k = layer.q_norm(q).to(v.dtype), layer.k_norm(k).to(v.dtype)
        read = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask.to(q.dtype), dropout_p=config.attention_dropout)
        return functional.dropout(layer.proj(read.transpose(1, 2).flatten(2)), config.dropout)
