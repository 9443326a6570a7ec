"""What the files of an output must be: noted when they are written, compared when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, final

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.record import Record
from rarkit.files.stored_json import JsonTable, parsed

AT_ONCE = 4
"""Chunks that are hashed at the same time: SHA-256 leaves the interpreter to other threads."""
_DESCRIBED = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs", "zarr_format", "node_type")
"""What of an array's zarr.json decides how its chunks are read."""


@final
class Digests:
    """Of the files of one output, by their path in it."""

    def __init__(self, record: Callable[[], Record | None], metadata: Callable[[Layout], bytes]) -> None:
        """``record``: of the output as it is now; ``metadata``: the zarr.json of an array of that layout."""
        self._record, self._metadata = record, metadata
        self.noted: dict[str, str] = {}
        """Of the chunks that this process wrote, or read and found whole, since the output was locked."""
        self._of: Record | None = None
        self._expected: dict[str, str] = {}
        self.checked: set[str] = set()
        """The files that ``check_all`` has seen."""
        self._noting: dict[str, str] | None = None

    def forget(self) -> None:
        """Forgets all: other processes may have written the output."""
        self.noted, self._of, self._expected, self.checked = {}, None, {}, set()

    def note(self, key: str, data: Any) -> None:
        """Notes what has been written, as a buffer."""
        self.noted[key] = sha256_of(data)

    def drop(self, array: str) -> None:
        """Forgets the files of an array, which are going to be written anew."""
        self.noted = {key: digest for key, digest in self.noted.items() if not key.startswith(f"{array}/")}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Chunks that are read within, and found whole, are noted as if this process had written them."""
        self._noting = {}
        try:
            yield
            self.noted |= self._noting
        finally:
            self._noting = None

    def check(self, key: str, data: Any) -> None:
        """Compares what has been read, as a buffer. Raises ValueError if it is not what was written."""
        expected = self.expected(key)
        if expected is not None and sha256_of(data) != expected:
            raise ValueError(f"{key} is not what was written")
        if key.endswith("/zarr.json"):
            # A digest tells that it is whole, not who wrote it: another codec could expand, or another chunk be of any size.
            self._check_metadata(key.removesuffix("/zarr.json"), bytes(data))
        elif expected is None and self._noting is not None:
            self._noting[key] = sha256_of(data)

    def expected(self, key: str) -> str | None:
        """What a file must be; None where the record does not tell."""
        record = self._record()
        if record is not self._of:
            self._of, self._expected = record, {}
            for name, array in record.arrays.items() if record is not None else ():
                if array.sha256 is not None:
                    self._expected[f"{name}/zarr.json"] = array.sha256
                for block, digest in enumerate(array.chunks or ()):
                    self._expected[array.layout.chunk_key(name, block)] = digest
        return self._expected.get(key)

    def check_all(self, files: Sequence[tuple[str, Any]]) -> None:
        """Checks several files, key and buffer of each, some at the same time. Raises ValueError as ``check`` does."""
        if len(files) == 1:
            self.check(*files[0])
        else:
            with ThreadPoolExecutor(AT_ONCE) as threads:
                list(threads.map(lambda file: self.check(*file), files))
        self.checked.update(key for key, _ in files)

    def _check_metadata(self, name: str, data: bytes) -> None:
        """Compares an array's metadata with its layout."""
        record = self._record()
        if record is None:
            return
        if name not in record.arrays:
            raise ValueError(f"{name}/zarr.json describes an array that the record does not list")
        try:
            is_metadata = _described(data)
        except ValueError as error:
            raise ValueError(f"{name}/zarr.json is not readable") from error
        if is_metadata != _described(self._metadata(record.arrays[name].layout)):
            raise ValueError(f"{name}/zarr.json does not describe the array that was written")


def sha256_of(data: Any) -> str:
    """The SHA-256 of a buffer, in hex."""
    return hashlib.sha256(data).hexdigest()


def _described(zarr_json: bytes) -> dict[str, Any]:
    metadata = parsed(JsonTable, zarr_json).root
    return {name: metadata.get(name) for name in _DESCRIBED}
