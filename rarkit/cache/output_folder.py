"""The folder of a stage output: a zarr group and the files beside it, read and written with few requests.

Where the store is remote, each question to it is a request. So the record, the listing and the arrays' metadata are kept once read.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.asyn import sync
from numpy.typing import NDArray

from rarkit.cache.checksums import file_sha256
from rarkit.cache.chunk_layout import Layout
from rarkit.cache.digests import Digests, sha256_of
from rarkit.cache.file_stream import FileStream, streaming
from rarkit.cache.hold import Hold, while_held
from rarkit.cache.record import Record
from rarkit.cache.seal import LARGEST, NewerRecord, opened, sealed
from rarkit.errors import RarkitError, StoreError, WriteError
from rarkit.files.locations import reaching
from rarkit.files.regular import open_regular, read_regular
from rarkit.files.system_errors import cure_of, may_pass

if TYPE_CHECKING:
    from rarkit.cache.zarr_groups import ZarrGroup

FILES = "files"
"""The folder of files beside the arrays."""
LOCK = "lock.json"


class _NoFileError(StoreError):
    """The zarr.json is a folder, a pipe or a device, or far too large."""


@final
class OutputFolder:
    """What this object writes, it knows; what other processes write, it sees after ``refresh``.

    All methods raise StoreError where the store cannot be reached or written.
    """

    def __init__(self, filesystem: AbstractFileSystem, path: str) -> None:
        self.filesystem = filesystem
        self.path = path
        self.hold: Hold | None = None
        """The permission to write, checked before and during each write; None where the caller sees to that."""
        self.digests = Digests(self._known_record, _array_metadata)
        self.refresh()

    def refresh(self) -> None:
        """Forgets what was read: the next question asks the store again."""
        self._asked = False
        self._record: Record | NewerRecord | None = None
        self._sizes: dict[str, int] | None = None
        self._group: ZarrGroup | None = None
        self.digests.forget()

    def forget_sizes(self) -> None:
        """Has the files listed anew when they are next asked for."""
        self._sizes = None

    def record(self) -> Record | NewerRecord | None:
        """The record, whatever its format; None if there is none. Raises ValueError if it is damaged; the message is short."""
        if not self._asked:
            try:
                with self._reaching():
                    zarr_json = self._zarr_json()
            except _NoFileError as error:
                raise ValueError(str(error)) from error
            self._record = None if zarr_json is None else opened(zarr_json)
            self._asked = True
        return self._record

    def _zarr_json(self) -> bytes | None:
        path = f"{self.path}/zarr.json"
        try:
            if self.is_local:
                return read_regular(path, LARGEST, raising=_NoFileError)
            # Given a start, s3fs sends one request; without, it first asks for the size, to read what is large in parallel.
            return bytes(self.filesystem.cat_file(path, start=0))
        except FileNotFoundError:
            return None
        except IsADirectoryError as error:
            raise _NoFileError(f"{path} is a folder") from error

    def _known_record(self) -> Record | None:
        return self._record if isinstance(self._record, Record) else None

    def write_record(self, record: Record) -> None:
        """Writes the record in one piece, and seals it; makes the zarr group where there is none."""
        group, content = self._zarr(), sealed(record)
        with self._changing():
            group.write_record(content)
        self._record, self._asked = record, True

    def sizes(self) -> Mapping[str, int]:
        """The size of every file that is there, by its path in the folder."""
        sizes = self._sizes
        if sizes is None:
            root = self.path.lstrip("/")
            with self._reaching():
                listing = self.filesystem.find(self.path, detail=True)
            # Checkpoints are written in a thread, which may forget them at any time.
            self._sizes = sizes = {name.lstrip("/")[len(root) + 1 :]: int(info["size"]) for name, info in listing.items()}
        return sizes

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's file system."""
        protocol = self.filesystem.protocol
        return "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def write_metadata(self, name: str, layout: Layout) -> str:
        """Writes an array's zarr.json, and returns its SHA-256."""
        group, metadata = self._zarr(), _array_metadata(layout)
        with self._changing():
            group.write_metadata(name, metadata)
        return sha256_of(metadata)

    def remove_array(self, name: str) -> None:
        """Removes all files of an array, if there are any."""
        keys = [key for key in self.sizes() if key.startswith(f"{name}/")]
        with self._changing():
            for key in keys:
                self._call("rm_file", f"{self.path}/{key}")
        self.digests.drop(name)

    def is_intact(self, name: str, layout: Layout, block: int) -> bool:
        """Whether a chunk is what was written. If this process did not write it, it is read, and its checksum counts."""
        if layout.chunk_key(name, block) not in self.digests.noted:
            try:
                with self.reading(), self.digests.noting():
                    self.read_rows(name, *layout.block_rows(block))
            except (FileNotFoundError, ValueError, KeyError):
                return False
        return True

    def read_rows(self, name: str, start: int, stop: int | None) -> NDArray[Any]:
        """Rows of an array. Call it within ``reading``.

        Raises:
            FileNotFoundError: the array or a chunk is missing.
            ValueError, KeyError: its metadata or a chunk is not what was written.
        """
        self.record()  # what is read is compared with it
        return np.asarray(self._zarr().array(name, "r")[start:stop])

    def write_rows(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Writes a whole block of an array."""
        with self._reaching():
            array = self._zarr().array(name, "r+")
        with self._changing():
            array[start : start + len(values)] = values

    def read_file(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError if it is missing."""
        with self.reading():
            path = f"{self.path}/{FILES}/{name}"
            if not self.is_local:
                return bytes(self.filesystem.cat_file(path))
            with open_regular(path, raising=StoreError) as file:
                return file.read()

    def file_sha256(self, name: str) -> str:
        """The SHA-256 of a file, in hex. Raises FileNotFoundError if it is missing."""
        with self.reading():
            return file_sha256(self.filesystem, f"{self.path}/{FILES}/{name}")

    def write_file(self, name: str, data: bytes) -> None:
        """Writes a file beside the arrays."""
        self.digests.noted.pop(f"{FILES}/{name}", None)
        with self._changing():
            self._call("makedirs", f"{self.path}/{FILES}", True)
            self._call("pipe_file", f"{self.path}/{FILES}/{name}", data)
        self.digests.note(f"{FILES}/{name}", data)

    @contextmanager
    def writing_file(self, name: str) -> Iterator[FileStream]:
        """A file beside the arrays, written in portions; it is there once all of it is."""
        path = f"{self.path}/{FILES}/{name}"
        self.digests.noted.pop(f"{FILES}/{name}", None)
        with streaming(self.filesystem, path, self._changing, self._call) as stream:
            yield stream
        self.digests.noted[f"{FILES}/{name}"] = stream.sha256

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes of a file from ``start`` to ``stop``, fewer where it ends. Raises FileNotFoundError if it is missing."""
        with self.reading():
            path = f"{self.path}/{FILES}/{name}"
            if not self.is_local:
                return bytes(self.filesystem.cat_file(path, start=start, end=stop))
            with open_regular(path, raising=StoreError) as file:
                file.seek(start)
                return file.read(stop - start)

    def remove_file(self, name: str) -> None:
        """Removes a file beside the arrays."""
        with self._changing():
            self._call("rm_file", f"{self.path}/{FILES}/{name}")

    def empty(self) -> None:
        """Deletes all but the lock, the record first, so that what is left of an interrupted removal counts as nothing."""
        self.refresh()
        with self._changing():
            for key in sorted(self.sizes(), key=lambda key: key != "zarr.json"):
                # The lock, and claims to it, are not this output's content.
                if not key.startswith(LOCK):
                    self._call("rm_file", f"{self.path}/{key}")
        self.refresh()

    def remove_empty_folders(self) -> None:
        """Removes the folders that hold nothing; where another process writes meanwhile, its folders stay."""
        with self.reading():
            listing = self.filesystem.find(self.path, withdirs=True, detail=True)
        folders = [name for name, info in listing.items() if info["type"] == "directory"]
        with self._changing():
            for folder in sorted({*folders, self.path}, key=len, reverse=True):
                try:
                    self.filesystem.rmdir(folder)
                except (FileNotFoundError, FileExistsError):
                    # Object stores have no folders, or say like this that there is something in them.
                    continue
                except OSError as error:
                    if error.errno != errno.ENOTEMPTY:
                        raise
        self.refresh()

    def _call(self, method: str, *arguments: Any) -> None:
        """Calls a method of the file system that writes; where it can be broken off, it is when the lock expires."""
        filesystem = self.filesystem
        if filesystem.async_impl:
            sync(filesystem.loop, while_held, self.hold, partial(getattr(filesystem, f"_{method}"), *arguments))
        else:
            getattr(filesystem, method)(*arguments)

    def _zarr(self) -> ZarrGroup:
        if self._group is None:
            from rarkit.cache.zarr_groups import ZarrGroup

            self._group = ZarrGroup(self.filesystem, self.path, lambda: self.hold, self.digests, local=self.is_local)
        return self._group

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around the reading of arrays and files: what is missing or damaged is for the caller to say."""
        try:
            yield
        except (FileNotFoundError, ValueError, KeyError):
            raise
        except Exception:
            with self._reaching():
                raise

    def _reaching(self) -> AbstractContextManager[None]:
        return reaching(self.path, "Check the store's address and permissions.", raising=StoreError)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Around whatever changes files, and nothing else: what takes time, such as an import, is done before.

        Raises:
            LockLostError: another process may write them now.
        """
        if self.hold is not None:
            with self._reaching():
                self.hold.check()
        try:
            yield
        except (RarkitError, AssertionError, MemoryError):
            raise
        except Exception as error:
            # Filesystems have exceptions of their own (botocore's are no OSErrors).
            if self.hold is not None:
                self.hold.check()
            cure = cure_of(error, "Check the store's address and permissions.")
            reason = str(error) or type(error).__name__
            kind = WriteError if may_pass(error) else StoreError
            raise kind(f"{self.path} cannot be written: {reason}. {cure} Nothing is lost: run again to go on.") from error
        finally:
            self.forget_sizes()


def _array_metadata(layout: Layout) -> bytes:
    from rarkit.cache.zarr_groups import array_metadata

    return array_metadata(layout)
