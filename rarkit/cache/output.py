"""One stage's output: a zarr v3 group and the files beside it, refused unless it is whole.

Arrays are written in blocks of rows, one chunk to a block and nothing shared between blocks, so that a killed stage goes on at the
first block that is missing. Chunks hold raw little-endian data followed by a CRC-32C (zarr's own codec), so that a chunk's size is
known beforehand: a truncated one is seen by its size. Any other damage is seen by the digests that the record of a finished output
has of every chunk and file, and by the seal over the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import numpy as np
from fsspec import AbstractFileSystem
from numpy.typing import DTypeLike, NDArray

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.file_stream import FileStream
from rarkit.cache.output_folder import FILES
from rarkit.cache.output_lock import Writing
from rarkit.cache.readable_output import ReadableOutput
from rarkit.cache.record import Record, StoredArray
from rarkit.errors import LockedError, StoreError
from rarkit.runtime.progress import Reporter


@final
class StageOutput(ReadableOutput):
    """Reads and writes ``<store>/<stage>/<fingerprint>/``; whoever writes it holds its lock.

    What writes raises StoreError where the store cannot be written, and LockLostError where another process may write it now.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str, stage: str, fingerprint: str) -> None:
        super().__init__(filesystem, path, stage, fingerprint)
        self._writing_since = time.monotonic()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process asks the store itself; locks are not handed on.
        return _unpickled, (self.filesystem, self.path, self.stage, self.fingerprint, self.cure)

    @contextmanager
    def writing(
        self,
        about: Mapping[str, Any],
        *,
        reads: Sequence[StageOutput] = (),
        afresh: bool = False,
        made_from: Callable[[], StageOutput | None] = lambda: None,
        wait: bool = False,
        while_waiting: Callable[[], None] = lambda: None,
        reporter: Reporter | None = None,
    ) -> Iterator[Writing]:
        """Holds the lock of this output while it is written, and begins it where nothing was begun.

        If the lock cannot be renewed in time, or another process has taken it over, whatever writes raises LockLostError.

        Args:
            about: plain JSON data for the record: identity, upstream, recipe, versions. Nobody removes what is upstream meanwhile.
            reads: what else is read for it; nobody removes that either, where it lies in the same store.
            afresh: throw away what is there, whole or not, once nobody reads it.
            made_from: an output that another process is making, and reads this one for (``Store.made_from``).
            wait: wait while another process is writing it, or reads what is to be thrown away; the reporter says for whom.
            while_waiting: called about once a second of the wait; what it raises ends the wait.
            reporter: also says if the lock cannot be renewed.

        Raises:
            LockedError: another process is writing or reading it, and ``wait`` is false.
            StoreError: the store cannot be written, or a newer rarkit wrote this output.
        """
        reporter = reporter or Reporter()
        names = [f"{stage}/{fingerprint}" for stage, fingerprint in about.get("upstream", {}).items()]
        names += [output.name for output in reads]
        with self._lock.held(reporter, reads=names, wait=wait, while_waiting=while_waiting) as writing:
            while afresh and (other := made_from()) is not None:
                self._wait_for_reader(other, wait, while_waiting, reporter)
            if afresh or not self.exists():
                # Without a record, what is there was left by a removal that was cut off.
                self._folder.empty()
            if (record := self.record()) is None:
                self._begin(Record.begun(self.stage, about))
            elif (reason := record.misnamed(self.fingerprint)) is not None:
                raise self._damaged(reason)
            self._writing_since = time.monotonic()
            yield writing

    def _wait_for_reader(self, other: StageOutput, wait: bool, while_waiting: Callable[[], None], reporter: Reporter) -> None:
        """Waits until no other process reads this output for another. Raises LockedError if ``wait`` is false."""
        if (reader := other.reader_of(self.name)) is None:
            return
        name, reading = f"stage {self.stage!r} ({self.fingerprint[:10]})", f"{reader}, in stage {other.stage!r}"
        if not wait:
            raise LockedError(f"{name} is being read by {reading}, and was to be made anew. Wait for it, or leave out --no-wait.")
        with reporter.waiting(f"{name}: waiting for {reading}, which is reading it"):
            while other.reader_of(self.name) is not None:
                while_waiting()
                time.sleep(self._lock.times.poll)

    def missing_blocks(self, names: Sequence[str]) -> list[int]:
        """The blocks of which at least one of these arrays has no whole chunk yet; the arrays have equally many blocks.

        Whoever is writing the output reads what others wrote: a chunk that an interrupted run left damaged is missing.
        """
        sizes, layouts = self._folder.sizes(), {name: self.layout(name) for name in names}
        assert len({layout.blocks for layout in layouts.values()}) == 1, f"arrays {names} differ in blocks"
        missing = {block for name, layout in layouts.items() for block in layout.missing(name, sizes)}
        if self._folder.hold is not None and not self.is_complete:
            for name, layout in layouts.items():
                whole = (block for block in range(layout.blocks) if block not in missing)
                missing |= {block for block in whole if not self._folder.is_intact(name, layout, block)}
        return sorted(missing)

    def written(self) -> dict[str, str]:
        """The digests of what this process wrote, by path in the output: plain JSON data for ``vouch`` of another rank."""
        return dict(self._folder.digests.noted)

    def vouch(self, written: Mapping[str, str]) -> None:
        """Takes another rank's word for what it wrote, which is then not read back."""
        self._folder.digests.noted |= written

    def _begin(self, record: Record) -> None:
        if record.misnamed(self.fingerprint) is not None:
            raise StoreError(
                f"{self.path} has a name like the fingerprint of an output, and is to hold another. Choose another place."
            )
        self._folder.write_record(record)

    def share(self, token: str) -> None:
        """Has this process write for as long as another rank holds the lock: the one with this ``Writing.token``."""
        self._lock.share(token)

    def wait_for_writer(self, *, reporter: Reporter, while_waiting: Callable[[], None]) -> None:
        """Waits until no other process is writing this output, unless it is complete."""
        holder = None if self.is_complete else self._lock.holder()
        if holder is not None and (holder.is_ahead or self.writer() is not None):
            with self._lock.held(reporter, wait=True, while_waiting=while_waiting):
                pass

    def create(self, name: str, shape: Sequence[int], dtype: DTypeLike, rows: int) -> bool:
        """Declares an array (N, …), chunked in blocks of ``rows``; keeps one that is already there with the same layout.

        Returns:
            Whether it is new, without any block.
        """
        layout, record = Layout.of(tuple(shape), np.dtype(dtype), rows), self.begun()
        known = record.arrays.get(name)
        if known is not None and known.layout != layout:
            self._folder.remove_array(name)
        # Written anew by each process: nobody has vouched for what an interrupted one left.
        stored = StoredArray.of(layout, self._folder.write_metadata(name, layout))
        if known != stored:
            self._folder.write_record(record.changed(arrays={**record.arrays, name: stored}, complete=False))
        return known is None or known.layout != layout

    def write_block(self, block: int, **rows: NDArray[Any]) -> None:
        """Writes one whole block of each array given by name."""
        for name, values in rows.items():
            start, stop = self.block_rows(name, block)
            assert values.shape[0] == stop - start, (name, block, values.shape, start, stop)
            self._folder.write_rows(name, start, values)

    def write_array(self, name: str, values: NDArray[Any], rows: int | None = None) -> None:
        """Creates an array and writes all of it."""
        is_new = self.create(name, values.shape, values.dtype, rows or max(1, values.shape[0]))
        for block in range(self.layout(name).blocks) if is_new else self.missing_blocks([name]):
            start, stop = self.block_rows(name, block)
            self.write_block(block, **{name: values[start:stop]})

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file beside the arrays; it counts once ``finish`` has listed it."""
        self._folder.write_file(name, data)

    def writing_file(self, name: str) -> AbstractContextManager[FileStream]:
        """As ``write_file``, for a file that is written in portions. It is not there before all of it is."""
        return self._folder.writing_file(name)

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
        record, sizes = self.begun(), self._folder.sizes()
        listed = {name: sizes.get(f"{FILES}/{name}") for name in files}
        unwritten = [name for name, size in listed.items() if size is None]
        unwritten += [name for name in record.arrays if self.missing_blocks([name])]
        if unwritten:
            raise self._damaged(f"{', '.join(unwritten)} not written in full")
        arrays = {name: self._sealed(name, array) for name, array in record.arrays.items()}
        noted = self._folder.digests.noted
        checksums = {name: noted.get(f"{FILES}/{name}") or self._folder.file_sha256(name) for name in files}
        if self._folder.hold is not None:
            self._folder.hold.confirm()
        taken = {"finished": round(time.time(), 3), "seconds": round(time.monotonic() - self._writing_since, 3)}
        done = {"arrays": arrays, "files": listed, "sha256": checksums, "complete": True, **taken}
        self._folder.write_record(record.changed(**facts, **done))

    def _sealed(self, name: str, array: StoredArray) -> StoredArray:
        """An array whose chunks are all there, with the digests of its files."""
        layout, noted = array.layout, self._folder.digests.noted
        metadata = array.sha256 or self._folder.write_metadata(name, layout)
        return StoredArray.of(layout, metadata, tuple(noted[layout.chunk_key(name, block)] for block in range(layout.blocks)))

    def remove(self, made_from: Callable[[], StageOutput | None] = lambda: None) -> None:
        """Deletes the output.

        Args:
            made_from: as that of ``writing``.

        Raises:
            LockedError: another process is writing or reading it.
        """
        with self._lock.held(Reporter()):
            if (other := made_from()) is not None and (reader := other.reader_of(self.name)) is not None:
                raise LockedError(f"it is being read by {reader}, in stage {other.stage!r}")
            self._folder.empty()
        self._folder.remove_empty_folders()


def _unpickled(filesystem: AbstractFileSystem, path: str, stage: str, fingerprint: str, cure: str) -> StageOutput:
    output = StageOutput(filesystem, path, stage, fingerprint)
    output.cure = cure
    return output
