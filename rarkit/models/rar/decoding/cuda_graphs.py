"""Decoding with fixed shapes and addresses within a bucket of cache lengths, so that CUDA graphs can replay it.

Shape letters: R rows, S = L + 1 entries of the sequence, D width, V codebook size.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from rarkit.models.rar.decoding.cuda_attention import fixed_reads_for
from rarkit.models.rar.decoding.modulations import Modulations
from rarkit.models.rar.decoding.steps import Steps, one_step
from rarkit.models.rar.decoding.weights import DecodingWeights

BUCKET = 64
"""The part of the cache that is read grows by this number of entries at a time, with one graph for each length."""


@final
class CapturedSteps(Steps):
    """Keeps what changes from entry to entry in buffers: the embeddings, the entry's number and its slot in the tables.

    On CUDA the first entry of a bucket runs eagerly, so that libraries initialise; the second is captured; all others, including
    those of later batches, are replayed. No step waits for the GPU. On other devices every entry runs eagerly, which lets tests
    compare this with the plain decoder.
    """

    def __init__(self, weights: DecodingWeights, rows: int) -> None:
        model = weights.model
        self.weights, self.config = weights, model.config
        self.modulations = Modulations(weights, min(rows, model.config.num_classes + 1))
        self.row_R = torch.zeros(rows, dtype=torch.int64, device=model.cls_token.device)
        self.positions_SD = model.cls_token.new_zeros(model.config.seq_len + 1, model.config.hidden_size)
        self.reads = fixed_reads_for(weights)(weights, rows)
        self.x_RD = model.cls_token.new_zeros(rows, model.config.hidden_size)
        self.entry_1, self.slot_1 = (torch.zeros(1, dtype=torch.int64, device=self.x_RD.device) for _ in range(2))
        self.graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.warm: set[tuple[int, int]] = set()

    def begin(self, class_ids_R: Tensor, order_L: Tensor) -> None:
        self.modulations.begin(class_ids_R)
        self.row_R.copy_(self.modulations.row_R)
        self.positions_SD.copy_(self.weights.model.positions(order_L))

    def advance(self, x_RD: Tensor, entry: int) -> Tensor:
        rows, length = len(x_RD), min(BUCKET * (entry // BUCKET + 1), self.config.seq_len + 1)
        self.modulations.reach(entry)
        self.x_RD[:rows].copy_(x_RD)
        self.entry_1.fill_(entry)
        self.slot_1.fill_(self.modulations.slot(entry))
        key = (rows, length)
        if key in self.graphs:
            graph, logits_RV = self.graphs[key]
            graph.replay()
            return logits_RV
        if not x_RD.is_cuda or key not in self.warm:
            self.warm.add(key)
            return self._step(rows, length)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits_RV = self._step(rows, length)
        self.graphs[key] = graph, logits_RV
        # Capturing does not compute anything.
        graph.replay()
        return logits_RV

    def _step(self, rows: int, length: int) -> Tensor:
        row_R = self.row_R[:rows]

        modulations = self.modulations.at(self.modulations.table_EUM.index_select(0, self.slot_1)[0], row_R)
        position_1D = self.positions_SD.index_select(0, self.entry_1)
        read = self.reads.at(self.entry_1, rows, length)
        return one_step(self.weights, self.x_RD[:rows] + position_1D, modulations, read)
