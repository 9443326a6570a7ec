"""What decoding takes, by arithmetic alone: no torch, since planning asks. A test holds it to the decoder's real tensors.

Shape letters: R rows of the batch (once more without classes, where guided), U distinct classes, S = L + 1 entries of the sequence,
E entries whose modulations are computed at once, D width, H width of the MLP, V codebook size.
"""

from __future__ import annotations

from rarkit.models.base import SamplingBytes
from rarkit.models.costs import ELEMENT_BYTES, drawn_bytes, keys_read
from rarkit.models.rar.config import RARConfig

TABLE_BYTES = 2**29
"""How large the decoder's tables of modulations may grow."""
WIDENED_BYTES = 2**22
"""How much of a cache in another type than the rows' a CPU widens at once: what stays in its own cache; one row at the least."""


def sampling_bytes(
    config: RARConfig,
    *,
    batch: int,
    guided: bool,
    dtype: str,
    on_cpu: bool = False,
    compiled: bool = False,
    float32_rows: bool = False,
    float8_cache: bool = False,
) -> SamplingBytes:
    """Memory of decoding, as ``CachedDecoder`` allocates it.

    Args:
        config: the model's sizes.
        batch: images at a time.
        guided: whether the unconditional branch is computed too.
        dtype: of weights and cache: ``"float32"``, ``"bfloat16"`` or ``"int8"`` (weights of the blocks' projections alone).
        on_cpu: whether it is a CPU that decodes: projections are then copied into a layout for decoding.
        compiled: whether the compiled kernels decode there, in float32; if not, the cache moves as it fills.
        float32_rows: whether entries are computed in float32, whatever the weights are: with the compiled kernels, and on x86
            processors without AVX-512.
        float8_cache: whether the cache has one byte a number.
    """
    element, width, entries = ELEMENT_BYTES[dtype], config.hidden_size, config.seq_len + 1
    computed = 4 if compiled or float32_rows else element
    rows = 2 * batch if guided else batch
    # Norms that are not adaptive have one row for all classes and entries.
    classes = min(batch, config.num_classes) + guided if config.conditioning == "adaln" else 1
    at_once = entries_at_once(config, classes, element)
    step = rows * (8 * width + 2 * config.mlp_hidden_size) * computed
    if not compiled:
        # A block's modulations for each row; compiled kernels read them where they are.
        step += rows * 6 * width * computed
    cached = 2 * rows * entries * width
    if (float8_cache or computed != element) and not compiled:
        # Widened block by block; on a CPU, some rows at a time.
        step += min(cached, max(WIDENED_BYTES // computed, cached // rows) if on_cpu else cached) * computed
    filling = at_once * classes * 8 * width * computed if config.conditioning == "adaln" else 0
    if compiled:
        # An entry's modulations widened; a layer's weights in panels.
        step += _entry_bytes(config, classes, 4) if element != 4 else 0
        filling += 6 * width**2 * element if filling else 0
    elif computed != element:
        # A layer's weights widened.
        filling += 6 * width**2 * computed if filling else 0
    return SamplingBytes(
        weights=config.parameter_count() * element,
        kv_cache=(config.depth + (on_cpu and not compiled)) * cached * (1 if float8_cache else element),
        modulations=at_once * _entry_bytes(config, classes, element),
        logits=drawn_bytes(config.codebook_size, rows=rows, batch=batch, computed=computed),
        workspace=max(step, filling),
        laid_out=_projection_bytes(config, dtype) if on_cpu else 0,
    )


def entries_at_once(config: RARConfig, classes: int, element: int) -> int:
    """For how many entries the tables hold so many classes' modulations ("no class" counted), at ``element`` bytes a number."""
    if config.conditioning != "adaln":
        return 1
    return min(config.seq_len + 1, max(1, TABLE_BYTES // _entry_bytes(config, classes, element)))


def _entry_bytes(config: RARConfig, classes: int, element: int) -> int:
    return (6 * config.depth + 2) * config.hidden_size * element * classes


def sampling_flops(config: RARConfig, *, batch: int, classes: int, guided_steps: int) -> int:
    """Multiplications and additions of decoding one batch: 2 for each weight of a matrix and row that it meets, and attention.

    The modulations are computed once for each distinct class and entry, not for each row.

    Args:
        config: the model's sizes.
        batch: images.
        classes: how many distinct classes they have.
        guided_steps: the steps, from the first, that need the unconditional branch.
    """
    width, hidden, entries = config.hidden_size, config.mlp_hidden_size, config.seq_len + 1
    # cls goes through in the first step.
    guided = guided_steps + 1 if guided_steps else 0
    row_entries = batch * (entries + guided)
    keys = batch * (keys_read(entries) + keys_read(guided))
    projections = row_entries * (config.depth * (4 * width**2 + 2 * width * hidden) + width * config.codebook_size)
    attention = 2 * config.depth * keys * width
    modulations = (classes + bool(guided)) * entries * (6 * config.depth + 2) * width**2 if config.conditioning == "adaln" else 0
    return 2 * (projections + attention + modulations)


def sampling_traffic(config: RARConfig, *, batch: int, guided_steps: int, dtype: str) -> int:
    """Bytes that decoding one batch reads at the least: weights but the modulations' at each entry, and the filled cache."""
    element, width, entries = ELEMENT_BYTES[dtype], config.hidden_size, config.seq_len + 1
    guided = guided_steps + 1 if guided_steps else 0
    cache = 2 * config.depth * width * batch * (keys_read(entries) + keys_read(guided))
    return entries * _projection_bytes(config, dtype) + element * cache


def _projection_bytes(config: RARConfig, dtype: str) -> int:
    """The matrices that every entry meets: the blocks' projections, and the head."""
    block = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.mlp_hidden_size
    head = config.hidden_size * config.codebook_size
    return config.depth * block * (1 if dtype == "int8" else ELEMENT_BYTES[dtype]) + head * ELEMENT_BYTES[dtype]
