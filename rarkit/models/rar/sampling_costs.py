"""The compute and memory of decoding, by arithmetic, without torch. A test compares it with the decoder's real tensors.

Shape letters: R rows (the batch, twice if guided: with and without classes), U distinct classes, S = L + 1 entries of the sequence,
E entries whose modulations are computed at once, D width, H width of the MLP, V codebook size.
"""

from __future__ import annotations

from rarkit.models.base import SamplingBytes
from rarkit.models.costs import ELEMENT_BYTES, drawn_bytes, keys_read
from rarkit.models.rar.config import RARConfig

TABLE_BYTES = 2**29
"""Maximum size of the decoder's tables of modulations."""
WIDENED_BYTES = 2**22
"""Bytes of a narrower KV cache that a CPU widens at a time, so that they stay in the CPU's cache; at least one row."""


def sampling_bytes(
    config: RARConfig,
    *,
    batch: int,
    guided: bool,
    dtype: str,
    on_cpu: bool = False,
    compiled: bool = False,
    widens_bfloat16: bool = False,
    sums_apart: bool = False,
    float8_cache: bool = False,
) -> SamplingBytes:
    """Memory of decoding, as ``CachedDecoder`` allocates it.

    Args:
        config: the model's configuration.
        batch: images per batch.
        guided: whether the unconditional branch is also computed.
        dtype: type of weights and cache: ``"float32"``, ``"bfloat16"`` or ``"int8"`` (only the blocks' projections are int8).
        on_cpu: whether a CPU decodes; it copies the projections into a layout for decoding.
        compiled: whether the CPU uses the compiled kernels, in float32; without them, the cache is moved as it fills.
        widens_bfloat16: whether bfloat16 weights are multiplied in float32 without the compiled kernels too, modulations with
            them, as on x86 processors without AVX-512 (``emulates_bfloat16``).
        sums_apart: whether bfloat16 products are summed in float32 memory of their own (``sums_bfloat16_apart``).
        float8_cache: whether the cache uses one byte per number.
    """
    element, width, entries = ELEMENT_BYTES[dtype], config.hidden_size, config.seq_len + 1
    filled = 4 if widens_bfloat16 else element
    computed, rows = 4 if compiled else filled, 2 * batch if guided else batch
    # Plain norms have one row for all classes and entries.
    classes = min(batch, config.num_classes) + guided if config.conditioning == "adaln" else 1
    at_once = entries_at_once(config, classes, element)
    step = rows * (8 * width + 2 * config.mlp_hidden_size) * computed
    if not compiled:
        # A block's modulations, copied for each row; compiled kernels read them in place.
        step += rows * 6 * width * computed
    cached = 2 * rows * entries * width
    if (float8_cache or computed != element) and not compiled:
        # The cache is widened block by block, on a CPU some rows at a time.
        step += min(cached, max(WIDENED_BYTES // computed, cached // rows) if on_cpu else cached) * computed
    if compiled and element != 4:
        # An entry's widened modulations.
        step += _entry_bytes(config, classes, 4)
    filling = 0
    if config.conditioning == "adaln":
        filling = at_once * classes * width * (8 * filled + (6 * 4 if sums_apart and filled != 4 else 0))
        # A layer's weights: in panels, or widened.
        filling += 6 * width**2 * (element if compiled and filled == 4 else filled if filled != element else 0)
    return SamplingBytes(
        weights=config.parameter_count() * element,
        kv_cache=(config.depth + (on_cpu and not compiled)) * cached * (1 if float8_cache else element),
        modulations=at_once * _entry_bytes(config, classes, element),
        logits=drawn_bytes(config.codebook_size, rows=rows, batch=batch, computed=computed),
        workspace=max(step, filling),
        laid_out=_projection_bytes(config, dtype) if on_cpu else 0,
    )


def entries_at_once(config: RARConfig, classes: int, element: int) -> int:
    """How many entries' modulations the tables hold for this many classes ("no class" included), at ``element`` bytes a number."""
    if config.conditioning != "adaln":
        return 1
    return min(config.seq_len + 1, max(1, TABLE_BYTES // _entry_bytes(config, classes, element)))


def _entry_bytes(config: RARConfig, classes: int, element: int) -> int:
    return (6 * config.depth + 2) * config.hidden_size * element * classes


def sampling_flops(config: RARConfig, *, batch: int, classes: int, guided_steps: int) -> int:
    """Multiplications and additions of decoding one batch: 2 per weight of a matrix and row, plus attention.

    The modulations are computed once per distinct class and entry, not per row.

    Args:
        config: the model's configuration.
        batch: images per batch.
        classes: number of distinct classes in the batch.
        guided_steps: number of steps, from the first, that run the unconditional branch.
    """
    width, hidden, entries = config.hidden_size, config.mlp_hidden_size, config.seq_len + 1
    # The first step also processes cls.
    guided = guided_steps + 1 if guided_steps else 0
    row_entries = batch * (entries + guided)
    keys = batch * (keys_read(entries) + keys_read(guided))
    projections = row_entries * (config.depth * (4 * width**2 + 2 * width * hidden) + width * config.codebook_size)
    attention = 2 * config.depth * keys * width
    modulations = (classes + bool(guided)) * entries * (6 * config.depth + 2) * width**2 if config.conditioning == "adaln" else 0
    return 2 * (projections + attention + modulations)


def sampling_traffic(config: RARConfig, *, batch: int, guided_steps: int, dtype: str) -> int:
    """Minimum bytes that decoding one batch reads: the weights (without modulations) at each entry, and the filled cache."""
    element, width, entries = ELEMENT_BYTES[dtype], config.hidden_size, config.seq_len + 1
    guided = guided_steps + 1 if guided_steps else 0
    cache = 2 * config.depth * width * batch * (keys_read(entries) + keys_read(guided))
    return entries * _projection_bytes(config, dtype) + element * cache


def _projection_bytes(config: RARConfig, dtype: str) -> int:
    """Bytes of the matrices that each entry reads: the blocks' projections and the head."""
    block = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.mlp_hidden_size
    head = config.hidden_size * config.codebook_size
    return config.depth * block * (1 if dtype == "int8" else ELEMENT_BYTES[dtype]) + head * ELEMENT_BYTES[dtype]
