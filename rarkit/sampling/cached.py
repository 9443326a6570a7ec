"""Decoding with a KV cache, and with everything that does not depend on tokens computed before it is needed.

Shape letters: B batch, R rows (the batch, then once more without its classes), U distinct classes, L tokens of an image, S = L + 1
entries of the sequence (cls, class, x_1 … x_{L−1}), E consecutive entries of it, D width, N heads, K head width, V codebook size;
M modulations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from rarkit.models.layers import Attend
from rarkit.models.transformer import PREFIX, OrderedTransformer
from rarkit.sampling.base import Decoder, guide, guided_steps

TABLE_BYTES = 2**28
"""How large the tables of modulations may grow; those of the next entries are computed when these are used up."""


@final
class CachedDecoder(Decoder):
    """One new position a step, both branches of guidance in one batch; the unconditional one goes when no step needs it any more.

    The modulations depend on class and step alone: they are computed for the distinct classes of the batch (and one "no class" for
    all rows) and many steps at once, in large matrix products.
    """

    def __init__(self, model: OrderedTransformer, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> None:
        self.model, self.scales, self.batch = model, scales, len(labels_B)
        self.guided_steps = guided_steps(scales)
        class_ids_R = model.class_ids(labels_B)
        if self.guided_steps:
            class_ids_R = torch.cat([class_ids_R, torch.full_like(class_ids_R, model.no_class_id)])
        self.class_ids_R = class_ids_R
        self.distinct_U, self.row_R = torch.unique(class_ids_R, return_inverse=True)
        self.positions_SD = model.positions(order_L)
        config = model.config
        self.kv = model.cls_token.new_empty(
            config.depth, 2, len(class_ids_R), config.num_heads, config.seq_len + 1, config.head_size
        )
        bytes_per_entry = (6 * config.depth + 2) * config.hidden_size * self.kv.element_size() * len(self.distinct_U)
        self.entries_at_once = max(PREFIX, TABLE_BYTES // bytes_per_entry)
        self.table_start = self.table_stop = 0
        self.tables_UEM: list[Tensor] = []

    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        guided = step < self.guided_steps
        rows = 2 * self.batch if guided else self.batch
        if previous_B is None:
            start, stop = 0, PREFIX
            class_R1D = self.model.embeddings(self.class_ids_R[:rows, None])
            x_RED = torch.cat([self.model.cls_token.expand(rows, -1, -1), class_R1D], dim=1)
        else:
            start, stop = step + 1, step + 2
            x_RED = self.model.embeddings(previous_B[:, None])
            if guided:
                x_RED = x_RED.repeat(2, 1, 1)
        x_RED = self._blocks(x_RED + self.positions_SD[start:stop], start, stop)
        last_R1D = x_RED[:, -1:]
        logits_RV = self.model.head(last_R1D, self._modulations(-1, rows, stop - 1, stop))[:, 0].float()
        if not guided:
            return logits_RV
        return guide(logits_RV[: self.batch], logits_RV[self.batch :], self.scales[step])

    def _blocks(self, x_RED: Tensor, start: int, stop: int) -> Tensor:
        rows = len(x_RED)
        for layer, block in enumerate(self.model.layers):
            x_RED = block(x_RED, self._modulations(layer, rows, start, stop), self._attend(layer, rows, start, stop))
        return x_RED

    def _attend(self, layer: int, rows: int, start: int, stop: int) -> Attend:
        """Puts new keys and values into the cache and reads all that is filled."""
        keys_RNSK, values_RNSK = self.kv[layer, 0, :rows], self.kv[layer, 1, :rows]

        def attend(q_RNEK: Tensor, k_RNEK: Tensor, v_RNEK: Tensor) -> Tensor:
            keys_RNSK[:, :, start:stop] = k_RNEK
            values_RNSK[:, :, start:stop] = v_RNEK
            seen = slice(0, stop)
            # Only the prefix comes as several entries at once, and then nothing is cached before it.
            return self.model.attention(q_RNEK, keys_RNSK[:, :, seen], values_RNSK[:, :, seen], causal=start == 0)

        return attend

    def _modulations(self, layer: int, rows: int, start: int, stop: int) -> Tensor:
        """(R, E, M) of entries ``start`` … ``stop − 1`` for a block, or for the final norm where ``layer`` is −1."""
        if stop > self.table_stop:
            self._fill_tables(start)
        entries = slice(start - self.table_start, stop - self.table_start)
        return self.tables_UEM[layer][:, entries].index_select(0, self.row_R[:rows])

    def _fill_tables(self, start: int) -> None:
        self.table_start, self.table_stop = start, min(start + self.entries_at_once, len(self.positions_SD))
        # The old tables go before the new ones come.
        self.tables_UEM = []
        activated_UED = self.model.conditioning(self.distinct_U, self.table_start, self.table_stop)
        self.tables_UEM = [block.modulations(activated_UED) for block in self.model.layers]
        self.tables_UEM.append(self.model.adaln_before_head.modulations(activated_UED))
