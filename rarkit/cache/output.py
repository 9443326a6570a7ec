"""One stage's output: a zarr v3 group and the files beside it, refused unless it is whole.

Arrays are written in blocks of rows, one chunk to a block and nothing shared between blocks, so that a killed stage goes on at the
first block that is missing. Chunks hold raw little-endian data followed by a CRC-32C (zarr's own codec), so that a chunk's size is
known beforehand: a truncated one is seen by its size, a damaged one by its checksum.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
from fsspec import AbstractFileSystem
from numpy.typing import DTypeLike, NDArray

from rarkit.cache.zarr_groups import open_group
from rarkit.cache.chunk_layout import Layout
from rarkit.cache.lock import lock
from rarkit.cache.checksums import seal
from rarkit.errors import IncompleteError, StoreError

if TYPE_CHECKING:
    import zarr

ATTRIBUTE = "rarkit"


@final
class StageOutput:
    """Reads and writes ``<store>/<stage>/<fingerprint>/``."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, stage: str, fingerprint: str) -> None:
        self.filesystem = filesystem
        self.path = path
        self.stage = stage
        self.fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"StageOutput({self.stage}/{self.fingerprint})"

    # What is there, without zarr

    def record(self) -> dict[str, Any]:
        """What was written about this output: ``complete``, identity, upstream, arrays, files, times. Empty if there is none."""
        try:
            raw = self.filesystem.cat_file(f"{self.path}/zarr.json")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error}. Check the store's address and permissions.") from error
        try:
            record = json.loads(raw)["attributes"].get(ATTRIBUTE, {})
        except (ValueError, KeyError, AttributeError) as error:
            raise IncompleteError(self._damage(f"zarr.json is not readable ({type(error).__name__})")) from error
        return dict(record)

    def exists(self) -> bool:
        """Whether anything was begun under this fingerprint."""
        return bool(self.filesystem.exists(f"{self.path}/zarr.json"))

    def defect(self) -> str | None:
        """Why this output cannot be used, or None. Counts and sizes every chunk and file, in one listing.

        Raises:
            StoreError: the store cannot be read.
        """
        record = self.record()
        if not record.get("complete"):
            return "it was never finished"
        sizes = self._sizes()
        for name, layout in record["arrays"].items():
            if f"{name}/zarr.json" not in sizes:
                return f"array {name!r} has lost its zarr.json"
            defect = Layout.read(layout).defect(name, sizes)
            if defect is not None:
                return defect
        for name, expected in record["files"].items():
            if sizes.get(f"files/{name}") != expected:
                return f"file {name!r} has {sizes.get(f'files/{name}', 0)} bytes instead of {expected}"
        return None

    def require_complete(self) -> dict[str, Any]:
        """The record of a complete output.

        Raises:
            IncompleteError: it is not complete, or has lost chunks; the message says which stage to force.
        """
        if not self.exists():
            lost = f"there is no output of stage {self.stage!r} at {self.path}"
            raise IncompleteError(f"{lost}. Check the place. Make it again with --force {self.stage}.")
        if (defect := self.defect()) is not None:
            raise IncompleteError(self._damage(defect))
        return self.record()

    def _damage(self, defect: str) -> str:
        return f"the output of stage {self.stage!r} at {self.path} is damaged: {defect}. Make it again with --force {self.stage}."

    def bytes_used(self) -> int:
        """How much room this output takes."""
        return sum(self._sizes().values())

    def _sizes(self) -> dict[str, int]:
        root = self.path.lstrip("/")
        found = self.filesystem.find(self.path, detail=True)
        return {name.lstrip("/")[len(root) + 1 :]: int(info["size"]) for name, info in found.items()}

    def layout(self, name: str) -> Layout:
        """How an array lies in its chunks."""
        return Layout.read(self.record()["arrays"][name])

    def chunk_path(self, name: str, block: int) -> str:
        """Where the chunk of a block lies, as the store's filesystem names it."""
        return f"{self.path}/{self.layout(name).chunk_key(name, block)}"

    @property
    def is_local(self) -> bool:
        """Whether the chunks are files of this machine, which can be memory-mapped."""
        protocol = self.filesystem.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    # Writing

    @contextmanager
    def writing(self, about: Mapping[str, Any], *, afresh: bool = False) -> Iterator[None]:
        """Holds the lock of this output while it is written, and begins it where nothing was begun.

        Args:
            about: plain JSON data for the record: identity, upstream, recipe, versions.
            afresh: throw away what is there, whole or not.

        Raises:
            LockedError: another process is writing it.
            StoreError: the store cannot be written.
        """
        with lock(self.filesystem, f"{self.path}/lock.json", f"stage {self.stage!r} ({self.fingerprint})"):
            if afresh:
                self._empty()
            if not self.record():
                self._group(mode="a").attrs[ATTRIBUTE] = {
                    **about,
                    "complete": False,
                    "stage": self.stage,
                    "started": time.time(),
                    "arrays": {},
                    "files": {},
                }
            yield

    def create(self, name: str, shape: Sequence[int], dtype: DTypeLike, rows: int) -> None:
        """Declares an array (N, …), chunked in blocks of ``rows``; keeps one that is already there with the same layout."""
        layout = Layout.of(tuple(shape), np.dtype(dtype), rows)
        record = self.record()
        if record["arrays"].get(name) == layout.written():
            return
        from zarr.codecs import Crc32cCodec

        group = self._group(mode="r+")
        changed: Any = {**record, "arrays": {**record["arrays"], name: layout.written()}}
        group.create_array(
            name,
            shape=layout.shape,
            chunks=layout.chunk_shape,
            dtype=np.dtype(layout.dtype),
            compressors=[Crc32cCodec().to_dict()],
            filters=None,
            overwrite=True,
        )
        group.attrs[ATTRIBUTE] = changed

    def missing_blocks(self, names: Sequence[str]) -> list[int]:
        """The blocks of which at least one of these arrays has no whole chunk yet; the arrays have equally many blocks."""
        arrays, sizes = self.record()["arrays"], self._sizes()
        layouts = {name: Layout.read(arrays[name]) for name in names}
        assert len({layout.blocks for layout in layouts.values()}) == 1, f"arrays {names} differ in blocks"
        return sorted({block for name, layout in layouts.items() for block in layout.missing(name, sizes)})

    def block_rows(self, name: str, block: int) -> tuple[int, int]:
        """First row and end row (exclusive) of a block."""
        return self.layout(name).block_rows(block)

    def write_block(self, block: int, **rows: NDArray[Any]) -> None:
        """Writes one whole block of each array given by name."""
        import zarr

        group = self._group(mode="r+")
        # Otherwise zarr leaves out chunks that hold nothing but zeros, and they would count as missing.
        with zarr.config.set({"array.write_empty_chunks": True}), self._writing_errors():
            for name, values in rows.items():
                start, stop = self.block_rows(name, block)
                assert values.shape[0] == stop - start, (name, block, values.shape, start, stop)
                group[name][start:stop] = values  # type: ignore[index]

    def write_array(self, name: str, values: NDArray[Any], rows: int | None = None) -> None:
        """Creates an array and writes all of it."""
        self.create(name, values.shape, values.dtype, rows or max(1, values.shape[0]))
        for block in self.missing_blocks([name]):
            start, stop = self.block_rows(name, block)
            self.write_block(block, **{name: values[start:stop]})

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file beside the arrays; it counts once ``finish`` has listed it."""
        with self._writing_errors():
            self.filesystem.makedirs(f"{self.path}/files", exist_ok=True)
            self.filesystem.pipe_file(f"{self.path}/files/{name}", data)

    def remove_file(self, name: str) -> None:
        """Removes a file that is no longer needed (an old checkpoint)."""
        self.filesystem.rm_file(f"{self.path}/files/{name}")

    def file_names(self) -> list[str]:
        """The files that are there, complete or not."""
        return sorted(key.removeprefix("files/") for key in self._sizes() if key.startswith("files/"))

    def finish(self, files: Sequence[str] = (), **facts: Any) -> None:
        """Counts every chunk, lists the files that belong to the output, and only then marks it complete.

        Raises:
            IncompleteError: a chunk or file is missing.
        """
        record, sizes = self.record(), self._sizes()
        listed = {name: sizes.get(f"files/{name}") for name in files}
        lost = [name for name, size in listed.items() if size is None]
        if lost := lost + [name for name in record["arrays"] if self.missing_blocks([name])]:
            raise IncompleteError(self._damage(f"{', '.join(lost)} not written in full"))
        seals = {name: seal(self.filesystem, f"{self.path}/files/{name}") for name in files}
        done = {**record, **facts, "files": listed, "sha256": seals, "complete": True, "finished": time.time()}
        self._group(mode="r+").attrs[ATTRIBUTE] = done

    def remove(self) -> None:
        """Deletes the output.

        Raises:
            LockedError: another process is writing it.
        """
        with lock(self.filesystem, f"{self.path}/lock.json", f"stage {self.stage!r} ({self.fingerprint})"):
            self._empty()
        if self.filesystem.exists(self.path):
            self.filesystem.rm(self.path, recursive=True)

    def _empty(self) -> None:
        """Deletes all but the lock, the record first, so that what is left of an interrupted removal counts as nothing."""
        if self.exists():
            self.filesystem.rm_file(f"{self.path}/zarr.json")
        for key in self._sizes():
            if key != "lock.json":
                self.filesystem.rm_file(f"{self.path}/{key}")

    # Reading

    def read_array(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array, checked against their checksums."""
        try:
            return np.asarray(self._group(mode="r")[name][start:stop])  # type: ignore[index]
        except (ValueError, KeyError) as error:
            raise IncompleteError(self._damage(f"array {name!r} or its checksum is not what was written")) from error

    def read_file(self, name: str) -> bytes:
        """The bytes of a file, checked against its checksum once the output is complete."""
        data = bytes(self.filesystem.cat_file(f"{self.path}/files/{name}"))
        expected = self.record().get("sha256", {}).get(name)
        if expected not in (None, hashlib.sha256(data).hexdigest()):
            raise IncompleteError(self._damage(f"file {name!r} is not what was written"))
        return data

    def verify(self, on_block: Callable[[], None] = lambda: None) -> str | None:
        """Like ``defect``, but reads every chunk and file and compares its checksum."""
        defect = self.defect()
        if defect is not None:
            return defect
        for name in self.record()["arrays"]:
            layout = self.layout(name)
            for block in range(layout.blocks):
                try:
                    self.read_array(name, *layout.block_rows(block))
                except IncompleteError as error:
                    return f"chunk {block} of array {name!r}: {error.__cause__}"
                on_block()
        for name, expected in self.record().get("sha256", {}).items():
            if seal(self.filesystem, f"{self.path}/files/{name}") != expected:
                return f"file {name!r} is not what was written"
        return None

    def _group(self, mode: Any) -> zarr.Group:
        with self._writing_errors():
            return open_group(self.filesystem, self.path, mode, local=self.is_local)

    @contextmanager
    def _writing_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"stage {self.stage!r} cannot write to {self.path}: {error}. Nothing is lost: free some room or mend the "
                "permissions, and run again."
            ) from error
