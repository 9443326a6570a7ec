"""Reading NumPy's ``.npz`` files, wherever they lie: arrays whole or in parts, never what wants to be unpickled."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching


@contextmanager
def opened(place: str) -> Iterator[zipfile.ZipFile]:
    """The file at a path or fsspec URL. Raises DatasetError if there is none, or it is no ``.npz`` file."""
    filesystem, path = filesystem_of(place)
    with reaching(place), filesystem.open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise DatasetError(f"{place} is truncated, damaged or no .npz file ({error}). Fetch it again.") from error
        with archive:
            yield archive


def header(archive: zipfile.ZipFile, key: str, place: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, without reading it. Raises DatasetError if it is damaged."""
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        shape, _, dtype = _read_header(file)
        return shape, dtype


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def checksums(archive: zipfile.ZipFile, keys: Iterable[str]) -> list[list[str | int]]:
    """Name, size and CRC of each array, as the file states them: plain JSON data, quickly had."""
    members = [archive.getinfo(f"{key}.npy") for key in keys]
    return [[member.filename, member.file_size, member.CRC] for member in members]


def streamed(archive: zipfile.ZipFile, key: str, place: str, rows: int) -> Iterator[NDArray[Any]]:
    """An array, so many rows at a time, in bounded memory. Raises DatasetError if it ends too early."""
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        shape, fortran, dtype = _read_header(file)
        if fortran:
            raise ValueError("it is stored column by column")
        for start in range(0, shape[0], rows):
            wanted = (min(rows, shape[0] - start), *shape[1:])
            data = file.read(math.prod(wanted) * dtype.itemsize)
            yield np.frombuffer(data, dtype).reshape(wanted)


def read_array(archive: zipfile.ZipFile, key: str, place: str) -> NDArray[Any]:
    """An array, whole. Raises DatasetError if it is damaged or wants to be unpickled."""
    with _reading(key, place), archive.open(f"{key}.npy") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array


@contextmanager
def _reading(key: str, place: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # zip files, decompressors and NumPy's headers each have errors of their own
        raise DatasetError(
            f"{place}: array {key} is damaged or not an array of numbers ({type(error).__name__}: {error}). Fetch the file again."
        ) from error
