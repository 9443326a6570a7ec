"""Decoding with a KV cache, and with everything that does not depend on tokens computed in advance.

Shape letters: B batch, R rows (the batch, then again without classes), L tokens of an image, D width, V codebook size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from rarkit.models.rar.decoding.cuda_graphs import CapturedSteps
from rarkit.models.rar.decoding.native_steps import CompiledSteps
from rarkit.models.rar.decoding.steps import DenseSteps, SlicedSteps, Steps
from rarkit.models.rar.decoding.weights import DecodingWeights
from rarkit.models.rar.layers import PREFIX
from rarkit.sampling.decoder import Decoder, guide, guided_steps


@final
class CachedDecoder(Decoder):
    """Adds one entry per step, with both branches of guidance in one batch; drops the unconditional one once it is not needed."""

    def __init__(self, weights: DecodingWeights, labels_B: Tensor, order_L: Tensor, scales: Sequence[float]) -> None:
        """The arguments after ``weights`` are those of ``Decodable.decoder``."""
        self.model, self.scales, self.batch = weights.model, scales, len(labels_B)
        self.guided_steps = guided_steps(scales)
        class_ids_R = self.model.class_ids(labels_B)
        if self.guided_steps:
            class_ids_R = torch.cat([class_ids_R, torch.full_like(class_ids_R, self.model.no_class_id)])
        self.class_ids_R = class_ids_R
        self.weights, self.rows = weights, len(class_ids_R)
        spare = weights.spare.pop(self.rows, None)
        self.steps: Steps = steps_for(weights)(weights, self.rows) if spare is None else spare
        self.steps.begin(class_ids_R, order_L)

    def logits(self, step: int, previous_B: Tensor | None) -> Tensor:
        guided = step < self.guided_steps
        rows = 2 * self.batch if guided else self.batch
        if previous_B is None:
            self.steps.advance(self.model.cls_token[0].expand(rows, -1), 0)
            x_RD = self.model.embeddings(self.class_ids_R[:rows])
        else:
            x_RD = self.model.embeddings(previous_B.repeat(2) if guided else previous_B)
        logits_RV = self.steps.advance(x_RD, step + PREFIX - 1).to(torch.float32, copy=True)
        if step == len(self.scales) - 1:
            # The next batch of this size reuses memory and graphs; those of other sizes are dropped.
            self.weights.spare.clear()
            self.weights.spare[self.rows] = self.steps
        if not guided:
            return logits_RV
        return guide(logits_RV[: self.batch], logits_RV[self.batch :], self.scales[step])


def steps_for(weights: DecodingWeights) -> type[Steps]:
    """The fastest kernels for a single query if the model uses PyTorch's attention; else the model's own attention."""
    if not weights.model.attends_with_pytorch:
        return SlicedSteps
    if weights.kernels is not None:
        return CompiledSteps
    return CapturedSteps if weights.model.cls_token.is_cuda else DenseSteps
