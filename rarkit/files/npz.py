"""NumPy's ``.npz`` files: read wherever they lie, whole or in parts, without ever unpickling; images written block by block.

Shape letters: N images, B of a block, H, W, C image height, width, channels.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError
from rarkit.files.atomic import rewriting
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.recognition import NPZ, instead, peeked
from rarkit.files.regular import open_on
from rarkit.files.system_errors import system_error

SMALL, EXPANSION = 2**30, 100
"""An array has at most so many bytes, or so many times those that it is compressed to, whichever is more."""
LONGEST_HEADER = 2**14
"""Bytes of the header of an array, which NumPy reads whole and then limits to 10,000."""


@contextmanager
def opened(place: str) -> Iterator[zipfile.ZipFile]:
    """The file at a path or fsspec URL. Raises DatasetError if there is none, or it is not an ``.npz`` file."""
    filesystem, path = filesystem_of(place)
    with reaching(place), open_on(filesystem, path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            cure = instead(peeked(file), NPZ)
            raise DatasetError(f"{place} is truncated, damaged or not an .npz file ({error}). {cure}") from error
        with archive:
            yield archive


def header(archive: zipfile.ZipFile, key: str, place: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without reading it. Raises DatasetError if it is damaged, or claims more than it can hold."""
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        shape, _, dtype = _read_header(archive, key, file)
        return shape, dtype


def _read_header(archive: zipfile.ZipFile, key: str, file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored column by column, and type; the file is then at the numbers."""
    start = file.read(10)
    if start[6:7] > b"\x01":
        start += file.read(2)
    length = int.from_bytes(start[8:], "little")
    if length > LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    head = io.BytesIO(start + file.read(length))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    member, claimed = archive.getinfo(f"{key}.npy"), math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and head.tell() + claimed != member.file_size:
        raise ValueError(f"{claimed:,} bytes of numbers by its header, {member.file_size - head.tell():,} in the file")
    # Members lie before the directory, whatever it says of their size.
    compressed = min(member.compress_size, archive.start_dir or 0)
    if member.file_size > max(SMALL, EXPANSION * compressed):
        raise ValueError(f"{compressed:,} bytes that expand to {member.file_size:,}")
    return shape, fortran, dtype


def checksums(archive: zipfile.ZipFile, keys: Iterable[str]) -> list[list[str | int]]:
    """Name, size and CRC of each array, as the file states them: plain JSON data, read from the directory alone."""
    members = [archive.getinfo(f"{key}.npy") for key in keys]
    return [[member.filename, member.file_size, member.CRC] for member in members]


def streamed(archive: zipfile.ZipFile, key: str, place: str, rows: int) -> Iterator[NDArray[Any]]:
    """An array, ``rows`` rows at a time, fewer where these are huge. Raises DatasetError if it ends too early."""
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        shape, fortran, dtype = _read_header(archive, key, file)
        if fortran:
            raise ValueError("it is stored column by column")
        row_bytes = math.prod(shape[1:]) * dtype.itemsize
        if row_bytes > SMALL:
            raise ValueError(f"rows of {row_bytes:,} bytes")
        rows = min(rows, max(1, SMALL // max(1, row_bytes)))
        for start in range(0, shape[0], rows):
            wanted = (min(rows, shape[0] - start), *shape[1:])
            data = file.read(math.prod(wanted) * dtype.itemsize)
            yield np.frombuffer(data, dtype).reshape(wanted)


def read_array(archive: zipfile.ZipFile, key: str, place: str) -> NDArray[Any]:
    """A whole array. Raises DatasetError if it is damaged, does not fit into memory, or would have to be unpickled."""
    size = archive.getinfo(f"{key}.npy").file_size
    header(archive, key, place)
    if size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise DatasetError(
            f"{place}: array {key} takes {size / 2**30:,.1f} GiB, more than the memory of this machine. Use a part of it, or save "
            "the images as files."
        )
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


@contextmanager
def _reading(key: str, place: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zip files, decompressors and NumPy's headers each have errors of their own
        if system_error(error) is not None:
            raise
        raise DatasetError(
            f"{place}: array {key} is damaged or not an array of numbers ({type(error).__name__}: {error}). Fetch the file again."
        ) from error


def write_npz(blocks: Iterable[NDArray[np.uint8]], labels_N: NDArray[Any], path: Path) -> None:
    """Writes images as the ADM evaluator reads them: ``arr_0`` uint8 NHWC with three channels, ``arr_1`` the labels.

    Memory is bounded by a block. What is at ``path`` is replaced once the new file is whole.

    Args:
        blocks: images (B, H, W, C) uint8 with 1 or 3 channels, N in all and at least one; grey ones are repeated.
        labels_N: as many labels.
        path: a local file.

    Raises:
        OSError: the file cannot be written.
    """
    blocks = iter(blocks)
    first_BHWC = next(blocks)
    shape = (len(labels_N), *first_BHWC.shape[1:3], 3)
    with rewriting(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            about = {"descr": np.lib.format.dtype_to_descr(first_BHWC.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, about)
            written = 0
            for block_BHWC in itertools.chain([first_BHWC], blocks):
                images = np.repeat(block_BHWC, 3, axis=-1) if block_BHWC.shape[-1] == 1 else block_BHWC
                assert images.shape[1:] == shape[1:], (images.shape, shape)
                member.write(np.ascontiguousarray(images).data)
                written += len(images)
            assert written == len(labels_N), (written, len(labels_N))
        with archive.open("arr_1.npy", "w") as member:
            np.lib.format.write_array(member, labels_N, allow_pickle=False)
