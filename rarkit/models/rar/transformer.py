"""The base of RAR and its merged form: embeddings, conditioning, blocks, head.

Shape letters: B batch, L tokens of an image, S = L + 1 entries fed to the blocks (cls, class, x_1 … x_{L−1}; the last token
predicts nothing), D width, V codebook size, U classes, C classes that there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rarkit.attention.base import AttentionFunction
from rarkit.attention.sdpa import SDPA, fused_attention
from rarkit.models.image_model import ImageModel
from rarkit.models.rar.config import SPARE_STEPS, RARConfig
from rarkit.models.rar.decoding.prepared import Prepared, prepare
from rarkit.models.rar.layers import Block, CausalAttention, Conditions, FinalNorm


class OrderedTransformer(ImageModel, ABC):
    """A class-conditional transformer over image tokens in visiting order. Subclasses define the positional embeddings."""

    config: RARConfig

    def __init__(self, config: RARConfig, attention: AttentionFunction | None, tables: Mapping[str, int]) -> None:
        """Uninitialised weights on torch's default device; ``tables`` maps the names of positional tables to their rows."""
        # Built on the meta device first: torch's own initialisation takes time and draws from the global generator.
        device = torch.get_default_device()
        with torch.device("meta"):
            super().__init__()
            self.config = config
            self.attention = SDPA().build() if attention is None else attention
            width = config.hidden_size
            self.cls_token = nn.Parameter(torch.empty(1, 1, width))
            for name, rows in tables.items():
                self.register_parameter(name, nn.Parameter(torch.empty(1, rows, width)))
            if config.conditioning == "adaln":
                self.timesteps_embeddings = nn.Parameter(torch.empty(1, config.seq_len + SPARE_STEPS, width))
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
            # Pass the tensor: if nn.Embedding draws the weights on the meta device, torch loads its compiler, which takes seconds.
            self.embeddings = nn.Embedding(config.vocabulary_size, width, _weight=torch.empty(config.vocabulary_size, width))
            self.adaln_before_head = FinalNorm(config)
            self.lm_head = nn.Linear(width, config.codebook_size)
        if device.type != "meta":
            self.to_empty(device=device)

    @abstractmethod
    def positions(self, orders_BL: Tensor) -> Tensor:
        """The positional embeddings of the S entries: (B, S, D), or (S, D) for an order (L,).

        Args:
            orders_BL: (B, L) or (L,) int64; the raster index visited at each step.
        """

    @final
    def class_ids(self, labels_B: Tensor, dropped_B: Tensor | None = None) -> Tensor:
        """Rows of the embedding table for classes 0 … C−1, and for "no class" where ``dropped_B`` is true: (B,) int64."""
        ids_B = labels_B + self.config.codebook_size + 1
        return ids_B if dropped_B is None else ids_B.masked_fill(dropped_B, self.no_class_id)

    @property
    @final
    def layers(self) -> Sequence[Block]:
        """The blocks, with their type."""
        return cast(Sequence[Block], self.blocks)

    @property
    @final
    def repeated(self) -> Sequence[Block]:
        return self.layers

    @property
    @final
    def attends_with_pytorch(self) -> bool:
        """Whether attention is PyTorch's own, so that decoding may use other kernels with the same result."""
        return self.attention is fused_attention

    @property
    @final
    def no_class_id(self) -> int:
        """The row of the embedding table for "no class"."""
        return self.config.vocabulary_size - 1

    @property
    @final
    def has_modulations(self) -> bool:
        """Whether norms are adaptive, that is, depend on class and step."""
        return self.config.conditioning == "adaln"

    @final
    def conditioning(self, class_ids_B: Tensor, start: int, stop: int) -> Tensor:
        """SiLU of the conditioning vectors of sequence entries ``start`` … ``stop − 1`` (cls is entry 0): (B, stop − start, D).

        The modulations depend on nothing else: they are the same for every token, position and order.
        """
        class_B1D = self.embeddings(class_ids_B)[:, None]
        return functional.silu(class_B1D + self.timesteps_embeddings[:, start:stop])

    def forward(
        self,
        tokens_BL: Tensor,
        labels_B: Tensor,
        orders_BL: Tensor,
        *,
        dropped_B: Tensor | None = None,
        mask_seeds_B: Tensor | None = None,
        checkpointing: int = 0,
    ) -> Tensor:
        """See ``ImageModel.forward``."""
        class_ids_B = self.class_ids(labels_B, dropped_B)
        visited_BL = tokens_BL.gather(1, orders_BL.expand_as(tokens_BL))
        ids_BL = torch.cat([class_ids_B[:, None], visited_BL[:, :-1]], dim=1)
        cls_B1D = self.cls_token.expand(len(ids_BL), -1, -1)
        x_BSD = torch.cat([cls_B1D, self.embeddings(ids_BL)], dim=1) + self.positions(orders_BL)
        conditions = self._conditions(class_ids_B, x_BSD.shape[1]) if self.has_modulations else None
        keys = self.dropout_keys(max(self.config.dropout, self.config.attention_dropout), self.config.depth, mask_seeds_B)
        for layer, block in enumerate(self.layers):
            read = CausalAttention(self.attention, self.weight_dropout(self.config.attention_dropout, mask_seeds_B, layer))
            arguments = x_BSD, conditions, read, None if keys is None else keys[layer]
            again = checkpointing and layer % checkpointing == 0
            x_BSD = checkpoint(block, *arguments, use_reentrant=False) if again else block(*arguments)
        return self.head(x_BSD[:, 1:], None if conditions is None else conditions.after(1))

    def _conditions(self, class_ids_B: Tensor, entries: int) -> Conditions:
        """What the modulations depend on, once for each class in the batch.

        Modulations are a third of a block's products. Where there are fewer classes than samples, they are computed of all classes,
        so that shapes are the same in every batch; else of the batch's own, where that makes no GPU wait and no compiler start
        anew.
        """
        first, classes = self.config.codebook_size + 1, self.config.num_classes + 1
        if classes < len(class_ids_B):
            every_U = torch.arange(first, first + classes, device=class_ids_B.device)
            return Conditions(self.conditioning(every_U, 0, entries), class_ids_B - first)
        if class_ids_B.device.type == "cpu" and type(class_ids_B) is Tensor and not torch.compiler.is_compiling():
            own_U, row_B = torch.unique(class_ids_B, return_inverse=True)
            if len(own_U) < len(class_ids_B):
                return Conditions(self.conditioning(own_U, 0, entries), row_B)
        return Conditions(self.conditioning(class_ids_B, 0, entries), None)

    @final
    def head(self, x_BSD: Tensor, conditions: Conditions | None) -> Tensor:
        """Logits (B, S, V) from the last block's output."""
        logits_BSV: Tensor = self.lm_head(self.adaln_before_head(x_BSD, conditions))
        return logits_BSV

    @final
    def prepare(self, *, int8: bool = False, float8_cache: bool = False, compiled: bool | None = None) -> Prepared:
        """Prepares the weights for decoding; see ``rarkit.models.rar.decoding.prepared.prepare``."""
        return prepare(self, self, int8=int8, float8_cache=float8_cache, compiled=compiled)
