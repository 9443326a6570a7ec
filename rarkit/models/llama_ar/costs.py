"""The compute and memory of ``llama_ar``, by arithmetic, without torch. Tests compare it with what torch counts and allocates.

Shape letters: B batch or micro-batch, R rows (the batch, twice if guided: with and without classes), L tokens of an image, which
is also the number of entries, D width, H width of the MLP, N heads, K head width, V codebook size.
"""

from __future__ import annotations

from typing import final

from rarkit.models.base import ModelCosts, SamplingBytes, TrainingBytes
from rarkit.models.costs import (
    ELEMENT_BYTES,
    activation_bytes,
    drawn_bytes,
    kept_weights_bytes,
    keys_read,
    loss_bytes,
    recomputed_blocks,
)
from rarkit.models.llama_ar.config import LlamaARConfig
from rarkit.runtime.machine import emulates_bfloat16


@final
class LlamaARCosts(ModelCosts):
    """The costs of a model with this configuration."""

    def __init__(self, config: LlamaARConfig) -> None:
        self.config = config

    def step_flops(self, batch_size: int, *, checkpointing: int) -> int:
        """See ``ModelCosts``. Attention is counted as if it were not causal; kernels may do less."""
        config, entries = self.config, self.config.seq_len
        blocks = 2 * entries * config.matrix_weights() + config.depth * 4 * entries**2 * config.hidden_size
        forward = blocks + 2 * entries * config.head_weights()
        again = blocks
        if config.dropout == 0:
            # PyTorch stops recomputing at the last tensor that the backward pass needs: without dropout, not the last product.
            again -= 2 * entries * config.depth * config.hidden_size * config.mlp_hidden_size
        return batch_size * (3 * forward + again // config.depth * recomputed_blocks(config.depth, checkpointing))

    def training_bytes(self, *, micro_batch: int, precision: str, checkpointing: int, keeps_weights: bool) -> TrainingBytes:
        config, count, low = self.config, self.config.parameter_count(), precision != "float32"
        entries, width, size = micro_batch * config.seq_len, config.hidden_size, 2 if low else 4
        block = entries * self._block_bytes(low)
        if keeps_weights:
            block += micro_batch * kept_weights_bytes(
                config.num_heads, config.seq_len, low=low, dropped=config.attention_dropout > 0
            )
        # Token and target; rotary tables; input, output and standard deviation of the last norm.
        ends = 2 * 8 + 2 * 4 * config.head_size + (4 + size) * width + 4
        inputs, head = 4 * width * entries, entries * (ends + loss_bytes(config.codebook_size, size))
        return TrainingBytes(
            weights=4 * count,
            gradients=4 * count,
            optimizer=8 * count,
            casts=2 * (config.matrix_weights() + config.head_weights()) if low else 0,
            activations=activation_bytes(config.depth, checkpointing, inputs=inputs, block=block, head=head),
        )

    def hidden_weights(self) -> int:
        return self.config.matrix_weights()

    def blocks(self) -> tuple[int, int]:
        return self.config.depth, self.config.matrix_weights() // self.config.depth + 2 * self.config.hidden_size

    def _block_bytes(self, low: bool) -> int:
        """Bytes that a block saves per entry."""
        config, size, dropped = self.config, 2 if low else 4, int(self.config.dropout > 0)
        # Inputs and outputs of the norms; autocast copies the outputs for each of the five projections that read them.
        norms = config.hidden_size * (2 * 4 + (5 if low else 2) * size)
        # Rotated q and k; v; the output of attention.
        attention = config.hidden_size * 4 * size
        # Standard deviations of the norms, and attention's log-sum-exps.
        sums = 4 * (2 + config.num_heads)
        # The gate, its SiLU, the up projection, and their product.
        mlp = config.mlp_hidden_size * 4 * size
        return norms + attention + sums + mlp + 2 * config.hidden_size * dropped

    def sampling_flops(self, *, batch: int, classes: int, guided_steps: int) -> int:
        config = self.config
        row_entries = batch * (config.seq_len + guided_steps)
        keys = batch * (keys_read(config.seq_len) + keys_read(guided_steps))
        return 2 * row_entries * (config.matrix_weights() + config.head_weights()) + 4 * config.depth * keys * config.hidden_size

    def sampling_traffic(self, *, batch: int, guided_steps: int, precision: str) -> int:
        config = self.config
        weights = config.seq_len * (config.matrix_weights() + config.head_weights())
        cache = 2 * config.depth * config.hidden_size * batch * (keys_read(config.seq_len) + keys_read(guided_steps))
        return ELEMENT_BYTES[precision] * (weights + cache)

    def sampling_bytes(self, *, batch: int, guided: bool, precision: str, kv_cache: str, on_cpu: bool) -> SamplingBytes:
        config, element = self.config, ELEMENT_BYTES[precision]
        rows = 2 * batch if guided else batch
        attention, mlp = 0, 3 * config.mlp_hidden_size
        if on_cpu and precision != "float32" and not emulates_bfloat16():
            # oneDNN multiplies contiguous matrices only: it copies a block's keys, then its values, out of the cache.
            attention = config.seq_len * config.hidden_size
        step = rows * (8 * config.hidden_size + max(attention, mlp)) * element
        return SamplingBytes(
            weights=config.parameter_count() * element,
            kv_cache=2 * config.depth * rows * config.seq_len * config.hidden_size * element,
            modulations=0,
            logits=drawn_bytes(config.codebook_size, rows=rows, batch=batch, computed=element),
            workspace=step + 2 * 4 * config.seq_len * config.head_size,
            laid_out=0,
        )
