"""The model of ``wrong_model_family``, in a file of its own because it imports torch.

Shape letters: B batch, R rows (the batch, then once more without its classes), L tokens of an image, T entries so far, D width, V
codebook size.
"""

from __future__ import annotations

from typing import final

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rarkit.attention.base import Dropout
from rarkit.errors import UserError
from rarkit.models.image_model import ImageModel
from rarkit.sampling.decoder import Decodable, Decoder, guide


@final
class BentModel(ImageModel):
    def __init__(self, config, attention, dropout, seed):
        super().__init__()
        self.config, self.attention, self.dropout = config, attention, dropout
        codes, width = config.codebook_size, config.hidden_size
        self.tokens = nn.Parameter(torch.empty(codes + config.num_classes + 1, width))
        self.places = nn.Parameter(torch.empty(config.seq_len, width))
        self.out = nn.Parameter(torch.empty(codes + (config.fault == "shape"), width))
        if config.fault == "unused":
            self.spare = nn.Parameter(torch.empty(1, width))
        if config.fault == "global":
            torch.manual_seed(seed)
        generator = torch.default_generator if config.fault == "global" else torch.Generator()
        generator.manual_seed({"seedless": 0, "hashed": hash(f"bent {seed}")}.get(config.fault, seed))
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator))

    def forward(self, tokens_BL, labels_B, orders_BL, *, dropped_B=None, mask_seeds_B=None, checkpointing=False):
        fault, orders_BL = self.config.fault, orders_BL.expand_as(tokens_BL)
        self._misuse(tokens_BL)
        if fault == "first_order":
            orders_BL = orders_BL[:1].expand_as(tokens_BL)
        ids_BL = torch.cat([self.class_ids(labels_B, dropped_B)[:, None], tokens_BL.gather(1, orders_BL)[:, :-1]], dim=1)
        if fault == "blind":
            ids_BL[:, 1:] = 0
        x_BLD = self.tokens[ids_BL] + self.places[torch.zeros_like(orders_BL) if fault == "orderless" else orders_BL]
        if fault == "batch":
            x_BLD = x_BLD + x_BLD.mean(0)
        dropout = self.weight_dropout(self.dropout, mask_seeds_B, 0)
        if dropout is not None and fault == "unseeded":
            dropout = Dropout(self.dropout, torch.randint(2**40, mask_seeds_B.shape), 0)
        dropout = None if fault == "never" else dropout
        if checkpointing:
            x_BLD = x_BLD.detach() if fault == "detached" else x_BLD
            return checkpoint(self._layer, x_BLD, dropout, use_reentrant=False)
        return self._layer(x_BLD, dropout)

    def _misuse(self, tokens_BL):
        match self.config.fault:
            case "writes":
                tokens_BL.clamp_(max=5)
            case "views":
                tokens_BL.view(-1)
            case "one_size":
                assert tokens_BL.shape[1] < 256
            case "eval_draws":
                torch.rand(1)

    def _layer(self, x_BLD, dropout):
        if self.config.fault == "frozen":
            x_BLD = x_BLD.detach()
        if self.config.fault == "float32":
            x_BLD = x_BLD @ torch.eye(x_BLD.shape[-1])
        x_BNLD = x_BLD[:, None]
        if self.config.fault == "sees_256":
            entries_BN = [self.attention(part, part, part, causal=True) for part in x_BNLD.split(256, dim=2)]
            return self.head(x_BLD, torch.cat(entries_BN, dim=2)[:, 0])
        read_BNLD = self.attention(x_BNLD, x_BNLD, x_BNLD, causal=self.config.fault != "peeking", dropout=dropout)
        return self.head(x_BLD, read_BNLD[:, 0])

    def head(self, x_BLD, read_BLD):
        read_BLD = functional.dropout(read_BLD, 0.5) if self.config.fault == "always" else read_BLD
        return (x_BLD + read_BLD).tanh() @ self.out.T

    def class_ids(self, labels_B, dropped_B):
        fault, first = self.config.fault, self.config.codebook_size
        if fault == "classless":
            labels_B = torch.zeros_like(labels_B)
        if dropped_B is not None and fault != "undropped":
            labels_B = labels_B.masked_fill(dropped_B, self.config.num_classes)
        return first + labels_B

    def prepare(self, *, int8=False, float8_cache=False, compiled=None):
        if (int8 or float8_cache) and self.config.fault != "silent":
            raise UserError("bent has neither int8 weights nor a float8 cache")
        return BentPrepared(self)

    def merge_positions(self, order_L):
        if self.config.fault != "merged":
            return super().merge_positions(order_L)
        merged = BentModel(self.config, self.attention, self.dropout, 0)
        return merged.eval()


@final
class BentPrepared(Decodable):
    def __init__(self, model):
        self.model = model

    @property
    def network(self):
        return self.model

    @property
    def sizes(self):
        return self.model.config

    def decoder(self, labels_B, order_L, scales):
        return BentDecoder(self.model, labels_B, order_L, scales)


@final
class BentDecoder(Decoder):
    """Both branches to the end, entries as a growing list."""

    def __init__(self, model, labels_B, order_L, scales):
        self.model, self.order_L, self.scales = model, order_L, scales
        dropped_R = torch.arange(2 * len(labels_B), device=labels_B.device) >= len(labels_B)
        self.ids_R = model.class_ids(labels_B.repeat(2), dropped_R)
        self.x_RTD = []

    def logits(self, step, previous_B):
        model, fault = self.model, self.model.config.fault
        ids_R = self.ids_R if previous_B is None else previous_B.repeat(2)
        cell = self.order_L[max(0, step - 1) if fault == "stale" else step]
        self.x_RTD.append(model.tokens[ids_R] + model.places[cell])
        x_RNTD = torch.stack(self.x_RTD, dim=1)[:, None]
        read_RD = model.attention(x_RNTD[:, :, -1:], x_RNTD, x_RNTD, causal=False)[:, 0, 0]
        conditional_BV, unconditional_BV = model.head(self.x_RTD[-1], read_RD).float().chunk(2)
        return guide(conditional_BV, unconditional_BV, 1.0 if fault == "unguided" else self.scales[step])
