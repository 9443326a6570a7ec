"""transformers' own Llama over the codes of an image, with rotary positions in two dimensions, along one scan order.

A sequence is the class and the L codes of an image in visiting order. Ids are rows of the embedding table: the V codes, the classes
(V …) and "no class" (the last). Logits are over the codes only, because nothing else is ever predicted.

Shape letters: B batch, S new ids, L codes of an image, K head width, F = K / 4 frequencies, V codebook size.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from rarkit.models.image_generation import ImageGeneration, refuse_padding


@final
class LlamaARConfig(LlamaConfig):
    """Llama's own configuration, with the scan order and the base of the two-dimensional rotation (``rotary_base``)."""

    model_type = "rarkit_llama_ar"


@final
class RotaryInTwoDimensions(nn.Module):
    """Half of a head's pairs rotate with the row of the entry's cell, half with its column.

    Rows and columns count from 1; the class has position (0, 0), outside the grid.
    """

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__()
        self.config = config
        # Not buffers: transformers makes models without their values, and fills only what is in the checkpoint.
        self.tables: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, (B, S, K) in the dtype of ``x``, of entries by their number in the sequence."""
        if self.tables is None or self.tables[0].device != x.device:
            self.tables = self._tables(x.device)
        cos_BSK, sin_BSK = (table_SK[position_ids.clamp(max=len(table_SK) - 1)].to(x.dtype) for table_SK in self.tables)
        return cos_BSK, sin_BSK

    @torch.no_grad()
    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        half = self.config.hidden_size // self.config.num_attention_heads // 2
        frequency_F = self.config.rotary_base ** (-torch.arange(0, half, 2, device=device, dtype=torch.float32) / half)
        # The last code predicts nothing and has no position.
        cells_S = torch.tensor(self.config.scan_order[:-1], device=device)
        columns = self.config.grid[1]
        row_S, column_S = (nn.functional.pad(place_S + 1, (1, 0)) for place_S in (cells_S // columns, cells_S % columns))
        angles_SK = torch.cat([row_S[:, None] * frequency_F, column_S[:, None] * frequency_F] * 2, dim=-1)
        return angles_SK.cos(), angles_SK.sin()


@final
class LlamaARForCausalLM(ImageGeneration, LlamaForCausalLM):
    """transformers' Llama but for the rotation and the embeddings, which have the classes too."""

    config_class = LlamaARConfig
    _tied_weights_keys = None

    def __init__(self, config: LlamaARConfig) -> None:
        super().__init__(config)
        self.model.rotary_emb = RotaryInTwoDimensions(config)
        self.model.embed_tokens = nn.Embedding(config.embedding_rows, config.hidden_size)
        self.post_init()

    @property
    def scan_order_L(self) -> Tensor:
        return torch.tensor(self.config.scan_order)

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, labels: Tensor | None = None, **kwargs: Any
    ) -> CausalLMOutputWithPast:
        """As in transformers; ``labels`` may be ``input_ids`` themselves, because ids that are not codes do not count."""
        refuse_padding(attention_mask)
        output: Any = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        return CausalLMOutputWithPast(**{**output, "loss": self.next_code_loss(output.logits, labels)})
