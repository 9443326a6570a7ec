"""One stage's output: a zarr v3 group and the files beside it, refused unless it is whole.

Arrays are written in blocks of rows, one chunk to a block and nothing shared between blocks, so that a killed stage goes on at the
first block that is missing. Chunks hold raw little-endian data followed by a CRC-32C (zarr's own codec), so that a chunk's size is
known beforehand: a truncated one is seen by its size, a damaged one by its checksum.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
from fsspec import AbstractFileSystem
from numpy.typing import DTypeLike, NDArray

from rarkit.cache.checksums import wrong_content
from rarkit.cache.chunk_layout import Layout
from rarkit.cache.holder import Holder
from rarkit.cache.output_folder import FILES, OutputFolder
from rarkit.cache.output_lock import OutputLock, Writing
from rarkit.cache.record import ABSENT, FORMAT, begun, defect, finished, format_of, refusal
from rarkit.errors import IncompleteError, StoreError
from rarkit.runtime.progress import Reporter


@final
class StageOutput:
    """Reads and writes ``<store>/<stage>/<fingerprint>/``.

    The store is asked once for the record, and once for the listing until something is written. What other processes write is seen
    after ``refresh``. All methods raise StoreError where the store cannot be reached or written.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, stage: str, fingerprint: str) -> None:
        self.filesystem, self.path = filesystem, path
        self.stage, self.fingerprint = stage, fingerprint
        self.cure = f"Run its recipe again with --force {stage}."
        self._folder = OutputFolder(filesystem, path)
        self._lock = OutputLock(self._folder, f"stage {stage!r} ({fingerprint[:10]})")
        self._writing_since = time.monotonic()

    def __repr__(self) -> str:
        return f"StageOutput({self.stage}/{self.fingerprint})"

    def refresh(self) -> None:
        """Forgets what was read: the next question asks the store again."""
        self._folder.refresh()

    def record(self) -> dict[str, Any]:
        """What was written about this output: ``complete``, identity, upstream, arrays, files, times. Empty if there is none.

        Raises:
            IncompleteError: it is damaged.
            StoreError: a newer rarkit wrote it.
        """
        record = self._record_of_any_format()
        if format_of(record) > FORMAT:
            raise StoreError(
                f"the output of stage {self.stage!r} at {self.path} was written by a newer rarkit, in format {format_of(record)}; "
                f"this one reads formats 1 to {FORMAT}. Update rarkit, or choose another store."
            )
        return record

    @property
    def format(self) -> int | None:
        """The format of the record: 1 is an older rarkit's, a number above ``record.FORMAT`` a newer one's; None if there is none.

        Raises:
            IncompleteError: the record is damaged.
        """
        record = self._record_of_any_format()
        return format_of(record) if record else None

    def _record_of_any_format(self) -> dict[str, Any]:
        try:
            return self._folder.record()
        except ValueError as error:
            raise self._damaged(f"zarr.json is not readable ({type(error).__name__})") from error

    def exists(self) -> bool:
        """Whether anything was begun under this fingerprint, even if its record is damaged now."""
        try:
            return bool(self._folder.record())
        except ValueError:
            return True

    def defect(self) -> str | None:
        """Why this output cannot be used, or None. Counts and sizes every chunk and file. Errors are those of ``record``."""
        record = self.record()
        return defect(record, self._folder.sizes() if record.get("complete") else {})

    def require_complete(self) -> dict[str, Any]:
        """The record of a complete output.

        Raises:
            IncompleteError: it is not complete, or has lost chunks; the message says which stage to force.
            StoreError: a newer rarkit wrote it.
        """
        reason = self.defect() if self.exists() else ABSENT
        if reason is not None:
            raise self._damaged(reason)
        return self.record()

    def _damaged(self, reason: str) -> IncompleteError:
        return IncompleteError(refusal(self.stage, self.path, reason, self.writer(), self.cure))

    def writer(self) -> Holder | None:
        """The other process that is writing this output at the moment, as far as its lock tells; None if there is none."""
        return self._lock.writer()

    def bytes_used(self) -> int:
        """How much room this output takes."""
        return sum(self._folder.sizes().values())

    def file_sizes(self) -> dict[str, int]:
        """The size of each file that is there, complete or not."""
        sizes = self._folder.sizes()
        return {key.removeprefix(f"{FILES}/"): sizes[key] for key in sorted(sizes) if key.startswith(f"{FILES}/")}

    def file_names(self) -> list[str]:
        """The files that are there, complete or not."""
        return list(self.file_sizes())

    def layout(self, name: str) -> Layout:
        """How an array lies in its chunks."""
        return Layout.from_json(self.record()["arrays"][name])

    def block_rows(self, name: str, block: int) -> tuple[int, int]:
        """First row and end row (exclusive) of a block."""
        return self.layout(name).block_rows(block)

    def missing_blocks(self, names: Sequence[str]) -> list[int]:
        """The blocks of which at least one of these arrays has no whole chunk yet; the arrays have equally many blocks."""
        sizes, layouts = self._folder.sizes(), {name: self.layout(name) for name in names}
        assert len({layout.blocks for layout in layouts.values()}) == 1, f"arrays {names} differ in blocks"
        return sorted({block for name, layout in layouts.items() for block in layout.missing(name, sizes)})

    def chunk_path(self, name: str, block: int) -> str:
        """Where the chunk of a block lies, as the store's filesystem names it."""
        return f"{self.path}/{self.layout(name).chunk_key(name, block)}"

    @property
    def is_local(self) -> bool:
        """Whether the chunks are files of this machine, which can be memory-mapped."""
        return self._folder.is_local

    @contextmanager
    def writing(
        self,
        about: Mapping[str, Any],
        *,
        afresh: bool = False,
        wait: bool = False,
        while_waiting: Callable[[], None] = lambda: None,
        reporter: Reporter | None = None,
    ) -> Iterator[Writing]:
        """Holds the lock of this output while it is written, and begins it where nothing was begun.

        If the lock cannot be renewed in time, or another process has taken it over, whatever writes raises LockLostError.

        Args:
            about: plain JSON data for the record: identity, upstream, recipe, versions.
            afresh: throw away what is there, whole or not.
            wait: wait while another process is writing it; the reporter says for whom.
            while_waiting: called about once a second of the wait; what it raises ends the wait.
            reporter: also says if the lock cannot be renewed.

        Raises:
            LockedError: another process is writing it, and ``wait`` is false.
            StoreError: the store cannot be written, or a newer rarkit wrote this output.
        """
        with self._lock.held(reporter or Reporter(), wait=wait, while_waiting=while_waiting) as writing:
            if afresh:
                self._folder.empty()
            if not self.record():
                self._folder.write_record(begun(self.stage, about))
            self._writing_since = time.monotonic()
            yield writing

    def share(self, token: str) -> None:
        """Has this process write for as long as another rank holds the lock: the one with this ``Writing.token``."""
        self._lock.share(token)

    def wait_for_writer(self, *, reporter: Reporter, while_waiting: Callable[[], None]) -> None:
        """Waits until no other process is writing this output, unless it is complete."""
        if not self.record().get("complete") and self.writer() is not None:
            with self._lock.held(reporter, wait=True, while_waiting=while_waiting):
                pass

    def create(self, name: str, shape: Sequence[int], dtype: DTypeLike, rows: int) -> None:
        """Declares an array (N, …), chunked in blocks of ``rows``; keeps one that is already there with the same layout."""
        layout, record = Layout.of(tuple(shape), np.dtype(dtype), rows), self.record()
        if record["arrays"].get(name) != layout.as_json():
            self._folder.create_array(name, layout)
            self._folder.write_record({**record, "arrays": {**record["arrays"], name: layout.as_json()}})

    def write_block(self, block: int, **rows: NDArray[Any]) -> None:
        """Writes one whole block of each array given by name."""
        for name, values in rows.items():
            start, stop = self.block_rows(name, block)
            assert values.shape[0] == stop - start, (name, block, values.shape, start, stop)
            self._folder.write_rows(name, start, values)

    def write_array(self, name: str, values: NDArray[Any], rows: int | None = None) -> None:
        """Creates an array and writes all of it."""
        self.create(name, values.shape, values.dtype, rows or max(1, values.shape[0]))
        for block in self.missing_blocks([name]):
            start, stop = self.block_rows(name, block)
            self.write_block(block, **{name: values[start:stop]})

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file beside the arrays; it counts once ``finish`` has listed it."""
        self._folder.write_file(name, data)

    def remove_file(self, name: str) -> None:
        """Removes a file beside the arrays."""
        self._folder.remove_file(name)

    def finish(self, files: Sequence[str] = (), **facts: Any) -> None:
        """Counts every chunk, lists the files that belong to the output, and only then marks it complete.

        The record gets ``facts``, and how many ``seconds`` the run that finishes the output worked on it.

        Raises:
            IncompleteError: a chunk or file is missing.
        """
        # Other processes may have written chunks of this output too.
        self._folder.forget_sizes()
        record, sizes = self.record(), self._folder.sizes()
        listed = {name: sizes.get(f"{FILES}/{name}") for name in files}
        unwritten = [name for name, size in listed.items() if size is None]
        unwritten += [name for name in record["arrays"] if self.missing_blocks([name])]
        if unwritten:
            raise self._damaged(f"{', '.join(unwritten)} not written in full")
        checksums = {name: self._folder.file_sha256(name) for name in files}
        if self._folder.hold is not None:
            self._folder.hold.confirm()
        self._folder.write_record({**record, **facts, **finished(listed, checksums, self._writing_since)})

    def remove(self) -> None:
        """Deletes the output.

        Raises:
            LockedError: another process is writing it.
        """
        with self._lock.held(Reporter()):
            self._folder.empty()
        self._folder.remove_empty_folders()

    def read_array(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array, checked against their checksums.

        Raises:
            IncompleteError: there is no such array, or a chunk is missing or damaged.
        """
        with self.reading_array(name):
            return self._folder.read_rows(name, start, stop)

    @contextmanager
    def reading_array(self, name: str) -> Iterator[None]:
        """Around whatever reads an array: what is missing or has other content is damage, all else is trouble with the store.

        Raises:
            IncompleteError: FileNotFoundError, ValueError or KeyError was raised within.
            StoreError: any other error was.
        """
        try:
            with self._folder.reading():
                yield
        except FileNotFoundError as error:
            raise self._damaged(f"array {name!r} or one of its chunks is missing") from error
        except (ValueError, KeyError) as error:
            raise self._damaged(f"array {name!r} or its checksum is not what was written") from error

    def read_file(self, name: str) -> bytes:
        """The bytes of a file, checked against its checksum once the output is complete.

        Raises:
            IncompleteError: it is missing or damaged.
        """
        try:
            data = self._folder.read_file(name)
        except FileNotFoundError as error:
            raise self._damaged(f"file {name!r} is missing") from error
        expected = self.record().get("sha256", {}).get(name)
        if expected not in (None, hashlib.sha256(data).hexdigest()):
            raise self._damaged(f"file {name!r} is not what was written")
        return data

    def verify(self, on_block: Callable[[], None] = lambda: None) -> str | None:
        """Like ``defect``, but reads all that is in the store now, every chunk and file, and compares its checksum."""
        self.refresh()
        if (reason := self.defect()) is not None:
            return reason
        with self._folder.reading():
            return wrong_content(self.record(), self._folder.read_rows, self._folder.file_sha256, on_block)
