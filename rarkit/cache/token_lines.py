"""Published pre-tokenized data: records ``{"class_id": int, "tokens": [ints]}`` in JSON in and out of the store's format.

Shape letters: N images, L tokens of an image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.chunk_layout import rows_per_block, token_dtype
from rarkit.cache.output import StageOutput
from rarkit.cache.store import output_at
from rarkit.cache.token_records import Record, TokenFile, in_blocks, token_files
from rarkit.errors import DatasetError, StoreError
from rarkit.files.locations import opened, reaching
from rarkit.runtime.output import results
from rarkit.runtime.progress import Reporter

STDOUT = "-"
TOKENS, LABELS = "train_tokens", "train_labels"
DIGESTS = "train_records_sha256"
"""The array with the checksum of the records that each chunk was made of."""


def import_tokens(
    lines: str | Sequence[str],
    target: str,
    *,
    grid: tuple[int, int],
    codebook_size: int,
    num_classes: int,
    reporter: Reporter | None = None,
    wait: bool = True,
) -> int:
    """Reads JSON lines or arrays into a token store, which ``train.tokens`` of a recipe may name. It needs memory for one chunk.

    Interrupted, it goes on: chunks that were made of the same records are kept.

    Args:
        lines: a file or several, one after the other: paths or fsspec URLs, or patterns with ``*``, ``?`` or ``[…]``. Each holds a
            record a line (empty lines are passed over) or an array of records. A name that ends in ``.gz``, ``.xz`` or ``.zst`` is
            decompressed.
        target: the store to write, a path or any fsspec URL.
        grid: height and width of each image's grid of tokens.
        codebook_size: V; tokens are in [0, V).
        num_classes: C; class ids are in [0, C).
        reporter: shows progress.
        wait: wait while another process is writing the target.

    Returns:
        How many images there are.

    Raises:
        DatasetError: no file is given, one is missing or named twice, or a record is malformed; the message gives its number.
        LockedError: another process is writing the target, and ``wait`` is false.
        StoreError: the target cannot be written.
    """
    reporter = reporter or Reporter(quiet=True)
    places = [lines] if isinstance(lines, str) else list(lines)
    if STDOUT in places:
        raise DatasetError("tokens cannot be imported from stdin, since they are read twice. Write them to a file first.")
    files = token_files(places)
    count = sum(_counted(file, reporter) for file in files)
    output, limits = output_at(target, "tokenize"), Limits(grid[0] * grid[1], codebook_size, num_classes)
    names = [Path(file.name).name for file in files]
    imported = names[0] if len(names) == 1 else names
    about = {"identity": {"imported": imported, "codebook_size": codebook_size}, "upstream": {}, "grid": list(grid)}
    with output.writing(about, wait=wait, reporter=reporter):
        if output.is_complete:
            raise DatasetError(f"{target} holds tokens already: remove it, or import to another place")
        _write(output, files, count, limits, reporter)
        output.finish(grid=list(grid), classes=int(output.read_array(LABELS).max()) + 1)
    return count


def _write(output: StageOutput, files: Sequence[TokenFile], count: int, limits: Limits, reporter: Reporter) -> None:
    """Writes the chunks that are not there, or were made of other records."""
    dtype = token_dtype(limits.codebook_size)
    rows = rows_per_block(count, limits.length * dtype.itemsize)
    output.create(TOKENS, (count, limits.length), dtype, rows)
    output.create(LABELS, (count,), np.int32, rows)
    layout = output.layout(TOKENS)
    sizes = [stop - start for start, stop in map(layout.block_rows, range(layout.blocks))]
    output.create(DIGESTS, (layout.blocks, 32), np.uint8, 1)
    missing = set(output.missing_blocks([TOKENS, LABELS, DIGESTS]))
    with reporter.task("import tokens", count, "images") as advance:
        for block, records in enumerate(in_blocks(files, sizes)):
            digest = _digest(records)
            if block in missing or output.read_array(DIGESTS, block, block + 1).tobytes() != digest:
                tokens_NL, labels_N = _checked(records, limits)
                # First nobody's, last these records': wherever this is interrupted, it never vouches for what is not there.
                output.write_block(block, **{DIGESTS: np.zeros((1, 32), np.uint8)})
                output.write_block(block, **{TOKENS: tokens_NL.astype(dtype), LABELS: labels_N.astype(np.int32)})
                output.write_block(block, **{DIGESTS: np.frombuffer(digest, np.uint8)[None]})
            advance(len(records))


def _digest(records: Sequence[Record]) -> bytes:
    return hashlib.sha256(b"\n".join(record.content() for record in records)).digest()


def _counted(file: TokenFile, reporter: Reporter) -> int:
    reporter.say(f"counting the records of {file.name}")
    count = file.count()
    if not count:
        raise DatasetError(f"{file.name} is empty. It should hold a record for each image.")
    return count


@final
class Limits(NamedTuple):
    """What tokens and class ids must be."""

    length: int
    """Tokens of an image."""
    codebook_size: int
    num_classes: int


def export_tokens(source: str, lines: str, *, split: str = "train", reporter: Reporter | None = None) -> int:
    """Writes a split of a token store as JSON lines.

    Args:
        source: the store, a path or any fsspec URL.
        lines: the file to write, compressed as its name says; ``-`` for stdout.
        split: which split.
        reporter: shows progress.

    Returns:
        How many images there are.

    Raises:
        DatasetError: the store has no tokens of this split.
        IncompleteError: the store is damaged, or there is none.
    """
    reporter = reporter or Reporter(quiet=True)
    output = output_at(source, "tokenize")
    arrays = output.require_complete().arrays
    if f"{split}_tokens" not in arrays:
        known = ", ".join(sorted(name.removesuffix("_tokens") for name in arrays if name.endswith("_tokens")))
        raise DatasetError(f"{source} has no {split} tokens. It has: {known or 'none'}.")
    layout = output.layout(f"{split}_tokens")
    with _writing(lines) as file, reporter.task("export", layout.shape[0], "images") as advance:
        for block in range(layout.blocks):
            rows = layout.block_rows(block)
            labels_N, tokens_NL = (output.read_array(f"{split}_{what}", *rows).tolist() for what in ("labels", "tokens"))
            for label, tokens in zip(labels_N, tokens_NL, strict=True):
                file.write(json.dumps({"class_id": label, "tokens": tokens}) + "\n")
            advance(len(labels_N))
    return layout.shape[0]


@contextmanager
def _writing(lines: str) -> Iterator[TextIO]:
    """The file, whole or not at all if it is a local one; stdout for ``-``."""
    if lines == STDOUT:
        yield results()
        return
    with (
        reaching(lines, "Choose another place, or make room for it.", raising=StoreError),
        opened(lines, "wt", compression="infer", raising=StoreError) as file,
    ):
        yield file


def _checked(records: Sequence[Record], limits: Limits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    length, codebook_size, num_classes = limits

    def refuse(record: Record, reason: str) -> NoReturn:
        required = f'{{"class_id": 0 … {num_classes - 1}, "tokens": [{length} numbers, each 0 … {codebook_size - 1}]}}'
        each = "record" if record.file.is_array else "line"
        raise DatasetError(f"{record.place}: {reason}. Each {each} must be {required}.")

    tokens_NL = np.empty((len(records), length), dtype=np.int64)
    labels_N = np.empty(len(records), dtype=np.int64)
    for row, record in enumerate(records):
        try:
            value = record.value()
        except ValueError as error:
            refuse(record, f"not a record ({error})")
        label, tokens = value.class_id, value.tokens
        if len(tokens) != length:
            refuse(record, f"it has {len(tokens)} tokens, and a grid of this size has {length}")
        if label >= num_classes:
            refuse(record, f"class_id {label} is not in 0 … {num_classes - 1}")
        if max(tokens) >= codebook_size:
            refuse(record, f"tokens run from {min(tokens)} to {max(tokens)}")
        tokens_NL[row], labels_N[row] = tokens, label
    return tokens_NL, labels_N
