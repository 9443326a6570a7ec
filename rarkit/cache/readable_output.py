"""What can be asked of a stage output: whether it is whole, and what is in it. What is read is what was written, or refused."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fsspec import AbstractFileSystem
from numpy.typing import NDArray

from rarkit.cache.checksums import wrong_content
from rarkit.cache.chunk_layout import Layout
from rarkit.cache.digests import Digests
from rarkit.cache.holder import Holder
from rarkit.cache.output_folder import FILES, LOCK, OutputFolder
from rarkit.cache.output_lock import OutputLock
from rarkit.cache.record import ABSENT, FORMAT, NO_RECORD, UNFINISHED, Record, refusal
from rarkit.cache.seal import NewerRecord
from rarkit.errors import IncompleteError, StoreError


class ReadableOutput(ABC):
    """Reads ``<store>/<stage>/<fingerprint>/``.

    The store is asked once for the record, and once for the listing until something is written. What other processes write is seen
    after ``refresh``. All methods raise StoreError where the store cannot be reached.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, stage: str, fingerprint: str) -> None:
        self.filesystem, self.path = filesystem, path
        self.stage, self.fingerprint = stage, fingerprint
        self.cure = f"Run its recipe again with --force {stage}."
        self._folder = OutputFolder(filesystem, path)
        self._lock = OutputLock(self._folder, f"stage {stage!r} ({fingerprint[:10]})")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.stage}/{self.fingerprint})"

    def refresh(self) -> None:
        """Forgets what was read: the next question asks the store again."""
        self._folder.refresh()

    # Whether it is whole

    def record(self) -> Record | None:
        """What was written about this output; None if nothing was begun under this fingerprint.

        Raises:
            IncompleteError: it is damaged.
            StoreError: a newer rarkit wrote it.
        """
        record = self._record_of_any_format()
        if isinstance(record, NewerRecord):
            raise StoreError(
                f"the output of stage {self.stage!r} at {self.path} was written by a newer rarkit, in format {record.format}; "
                f"this one reads formats 1 to {FORMAT}. Update rarkit, or choose another store."
            )
        return record

    def begun(self) -> Record:
        """The record of an output that was begun. Raises IncompleteError if there is none, and as ``record``."""
        record = self.record()
        if record is None:
            raise self._damaged(ABSENT)
        return record

    @property
    def format(self) -> int | None:
        """The format of the record: 1 is an older rarkit's, a number above ``record.FORMAT`` a newer one's; None if there is none.

        Raises:
            IncompleteError: the record is damaged.
        """
        record = self._record_of_any_format()
        return None if record is None else record.format

    def _record_of_any_format(self) -> Record | NewerRecord | None:
        try:
            return self._folder.record()
        except ValueError as error:
            raise self._damaged(f"its zarr.json is damaged ({error})") from error

    def exists(self) -> bool:
        """Whether anything was begun under this fingerprint, even if its record is damaged now."""
        try:
            return self._folder.record() is not None
        except ValueError:
            return True

    def has_remains(self) -> bool:
        """Whether there is anything but a lock, with or without a record."""
        return any(not key.startswith(LOCK) for key in self._folder.sizes())

    @property
    def is_newer(self) -> bool:
        """Whether a newer rarkit wrote it, in a format that this one does not know."""
        try:
            return isinstance(self._folder.record(), NewerRecord)
        except ValueError:
            return False

    @property
    def is_complete(self) -> bool:
        """Whether the record says so: false where this rarkit cannot read it."""
        record = self.record_if_readable()
        return record is not None and record.complete

    def record_if_readable(self) -> Record | None:
        """The record; None if there is none, or it is damaged or of a newer rarkit."""
        try:
            record = self._folder.record()
        except ValueError:
            return None
        return record if isinstance(record, Record) else None

    def defect(self) -> str | None:
        """Why this output cannot be used, or None. Reads the record, counts and sizes every chunk and file.

        Raises:
            StoreError: a newer rarkit wrote it.
        """
        try:
            read = self._folder.record()
        except ValueError as error:
            return f"its zarr.json is damaged ({error})"
        record = self.record() if isinstance(read, NewerRecord) else read
        if record is None:
            return UNFINISHED
        return record.misnamed(self.fingerprint) or record.defect(self._folder.sizes() if record.complete else {})

    def require_complete(self) -> Record:
        """The record of a complete output.

        Raises:
            IncompleteError: it is not complete, or damaged; the message says which stage to force.
            StoreError: a newer rarkit wrote it.
        """
        reason = self.defect() if self.exists() else ABSENT
        if reason is not None:
            raise self._damaged(reason)
        return self.begun()

    def verify(self, on_block: Callable[[], None] = lambda: None) -> str | None:
        """Like ``defect``, but reads all that is in the store now, every chunk and file, and compares its checksum."""
        self.refresh()
        if not self.exists() and self.has_remains():
            return NO_RECORD
        if (reason := self.defect()) is not None:
            return reason
        with self._folder.reading():
            return wrong_content(self.begun(), self._folder.read_rows, self._folder.file_sha256, on_block)

    def _damaged(self, reason: str) -> IncompleteError:
        return IncompleteError(refusal(self.stage, self.path, reason, self.writer(), self.cure))

    def writer(self) -> Holder | None:
        """The other process that is writing this output at the moment, as far as its lock tells; None if there is none."""
        return self._lock.writer()

    @property
    def name(self) -> str:
        """As locks and receipts name it."""
        return f"{self.stage}/{self.fingerprint}"

    def reader_of(self, name: str) -> Holder | None:
        """The other process that is writing this output, and for that reads another: ``name``, as ``stage/fingerprint``."""
        return self._lock.reader_of(name)

    # What is in it

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
        """How an array lies in its chunks.

        Raises:
            IncompleteError: there is no such array.
        """
        arrays = self.begun().arrays
        if name not in arrays:
            raise self._damaged(f"it has no array {name!r}")
        return arrays[name].layout

    @abstractmethod
    def missing_blocks(self, names: Sequence[str]) -> list[int]:
        """The blocks of which at least one of these arrays has no whole chunk yet; the arrays have equally many blocks."""

    def block_rows(self, name: str, block: int) -> tuple[int, int]:
        """First row and end row (exclusive) of a block."""
        return self.layout(name).block_rows(block)

    def chunk_path(self, name: str, block: int) -> str:
        """Where the chunk of a block lies, as the store's filesystem names it."""
        return f"{self.path}/{self.layout(name).chunk_key(name, block)}"

    @property
    def is_local(self) -> bool:
        """Whether the chunks are files of this machine, which can be memory-mapped."""
        return self._folder.is_local

    @property
    def digests(self) -> Digests:
        """What its chunks must be."""
        return self._folder.digests

    def read_array(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array.

        Raises:
            IncompleteError: there is no such array, or its metadata or a chunk is missing or not what was written.
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
        expected = self.begun().sha256.get(name)
        if expected not in (None, hashlib.sha256(data).hexdigest()):
            raise self._damaged(f"file {name!r} is not what was written")
        return data

    def relist(self) -> None:
        """Has the files listed anew when they are next asked for: other ranks write some."""
        self._folder.forget_sizes()

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes of a file from ``start`` to ``stop``, of which nothing is checked but that they are there.

        Raises:
            IncompleteError: the file is missing or ends before.
        """
        try:
            data = self._folder.read_part(name, start, stop)
        except FileNotFoundError as error:
            raise self._damaged(f"file {name!r} is missing") from error
        if len(data) != stop - start:
            raise self._damaged(f"file {name!r} ends too early")
        return data

    def file_sha256(self, name: str) -> str | None:
        """The SHA-256 of all of a file, in hex; None if it is missing."""
        try:
            return self._folder.file_sha256(name)
        except FileNotFoundError:
            return None

    def checked_file(self, name: str) -> str:
        """The address of a file, which has its checksum, for readers that map it.

        Raises:
            IncompleteError: it is missing or damaged.
        """
        try:
            checksum = self._folder.file_sha256(name)
        except FileNotFoundError as error:
            raise self._damaged(f"file {name!r} is missing") from error
        if checksum != self.begun().sha256.get(name, checksum):
            raise self._damaged(f"file {name!r} is not what was written")
        return str(self.filesystem.unstrip_protocol(f"{self.path}/{FILES}/{name}"))
