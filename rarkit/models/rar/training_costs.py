"""The compute and memory of training, by arithmetic, without torch.

Shape letters: B micro-batch, S = L + 1 entries fed to the blocks, L tokens of an image, D width, H width of the MLP, N heads, V
codebook size.
"""

from __future__ import annotations

from rarkit.models.base import TrainingBytes
from rarkit.models.costs import activation_bytes, kept_weights_bytes, loss_bytes, recomputed_blocks
from rarkit.models.rar.config import RARConfig


def forward_flops(config: RARConfig, batch_size: int) -> int:
    """Multiplications and additions of the teacher-forced forward pass of a batch.

    2 per weight of a matrix and entry, plus 4·S²·D per image and block for attention, counted as if it were not causal; kernels may
    do less. Modulations are computed once per class and entry, of all classes where they are fewer than the images; otherwise they
    are counted for each image, although on a CPU images of one class share them.
    """
    width, entries = config.hidden_size, config.seq_len + 1
    matrices = batch_size * (4 * width**2 + 2 * width * config.mlp_hidden_size)
    block = entries * (matrices + _conditions(config, batch_size) * _modulation_weights(config, 6))
    return 2 * config.depth * block + config.depth * batch_size * 4 * entries**2 * width + _head_flops(config, batch_size)


def step_flops(config: RARConfig, batch_size: int, *, checkpointing: int) -> int:
    """FLOPs of one pass over a batch: forwards, twice that backwards, and again the blocks that are recomputed."""
    forward = forward_flops(config, batch_size)
    again = forward - _head_flops(config, batch_size)
    if config.conditioning == "prefix" and config.dropout == 0:
        # PyTorch stops recomputing at the last tensor that the backward pass needs: without gate and dropout, not the last product.
        again -= batch_size * 2 * (config.seq_len + 1) * config.depth * config.hidden_size * config.mlp_hidden_size
    return 3 * forward + again // config.depth * recomputed_blocks(config.depth, checkpointing)


def _conditions(config: RARConfig, batch_size: int) -> int:
    """How many classes, or else images, modulations are computed for."""
    return min(batch_size, config.num_classes + 1)


def _head_flops(config: RARConfig, batch_size: int) -> int:
    modulations = _conditions(config, batch_size) * _modulation_weights(config, 2)
    return 2 * config.seq_len * (modulations + batch_size * config.hidden_size * config.codebook_size)


def training_bytes(
    config: RARConfig, *, micro_batch: int, precision: str, checkpointing: int, keeps_weights: bool = False
) -> TrainingBytes:
    """Memory of eager training with fused AdamW and float32 weights. ``torch.compile`` saves less.

    Args:
        config: the model's configuration, including dropout.
        micro_batch: images per forward and backward pass.
        precision: autocast's dtype, or ``"float32"``.
        checkpointing: of every block (1) or every n-th (n), only the input is saved; 0 for none.
        keeps_weights: whether attention saves all S × S weights.
    """
    count, low = config.parameter_count(), precision != "float32"
    entries = micro_batch * (config.seq_len + 1)
    block = entries * _block_bytes(config, low)
    if keeps_weights:
        block += micro_batch * kept_weights_bytes(
            config.num_heads, config.seq_len + 1, low=low, dropped=config.attention_dropout > 0
        )
    inputs, head = 4 * config.hidden_size * entries, entries * _head_bytes(config, low)
    return TrainingBytes(
        weights=4 * count,
        gradients=4 * count,
        optimizer=8 * count,
        casts=2 * _matrix_weights(config) if low else 0,
        activations=activation_bytes(config.depth, checkpointing, inputs=inputs, block=block, head=head),
    )


def hidden_weights(config: RARConfig) -> int:
    """Number of weights in the matrices of all blocks, without those of modulations: what Muon trains."""
    return config.depth * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.mlp_hidden_size)


def _matrix_weights(config: RARConfig) -> int:
    modulations = config.depth * _modulation_weights(config, 6) + _modulation_weights(config, 2)
    return hidden_weights(config) + modulations + config.hidden_size * config.codebook_size


def _modulation_weights(config: RARConfig, parts: int) -> int:
    return parts * config.hidden_size**2 if config.conditioning == "adaln" else 0


def _block_bytes(config: RARConfig, low: bool) -> int:
    """Bytes that a block saves per entry."""
    width, hidden, dropped = config.hidden_size, config.mlp_hidden_size, int(config.dropout > 0)
    size = 2 if low else 4
    adaptive = config.conditioning == "adaln"
    # Per branch (two): the norm's input and output, 1 + scale, the modulated output, the gate's other factor, dropout's mask.
    # Without modulation: the norm's input, its output in the projection's dtype, dropout's mask.
    branches = 2 * width * ((4 + 4 + size + size + size if adaptive else 4 + size) + dropped)
    # q, k, v; normalised q and k; the output of attention. Autocast normalises float32 copies and casts the result back.
    attention = width * (3 * size + 2 * size + size + (2 * 4 if low else 0))
    # Means and standard deviations of the norms, those of q and k per head, and attention's log-sum-exps.
    sums = 4 * (2 * 2 + 4 * config.num_heads + config.num_heads)
    mlp = hidden * (2 * size + dropped)
    # Autocast casts the conditioning for each block; in float32 all blocks share it.
    modulations = width * (6 * size + (size if low else 0)) if adaptive else 0
    return branches + attention + sums + mlp + modulations


def _head_bytes(config: RARConfig, low: bool) -> int:
    """Bytes that the final norm, the head and the loss hold per entry when the backward pass starts."""
    size = 2 if low else 4
    # The last block's output; then the norm's part as in a block, and the conditioning.
    norm = config.hidden_size * (4 + (4 + 4 + 4 + 3 * size if config.conditioning == "adaln" else size))
    return norm + loss_bytes(config.codebook_size, size)
