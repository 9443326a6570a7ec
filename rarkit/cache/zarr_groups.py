"""The zarr group of a stage output, and its arrays. This module imports zarr: import it on use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, Self, final

import numpy as np
import zarr
from fsspec import AbstractFileSystem
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.buffer import cpu
from zarr.codecs import Crc32cCodec
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.digests import Digests
from rarkit.cache.hold import Hold, while_held
from rarkit.cache.record import LARGEST_METADATA
from rarkit.errors import StoreError
from rarkit.files.own_folder import OwnFolder
from rarkit.files.regular import open_regular


@final
class ZarrGroup:
    """The group of zarr format 3 at a path, and its arrays: each is opened at its first use and stays open."""

    def __init__(
        self, filesystem: AbstractFileSystem, path: str, hold: Callable[[], Hold | None], digests: Digests, *, local: bool
    ) -> None:
        """``hold``: the permission under which it is written at the moment; ``local``: the file system is this machine's."""
        self._filesystem = filesystem
        self._path = path
        self._hold = hold
        self._digests = digests
        self._local = local
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}
        self._metadata: dict[str, Buffer] = {}
        self._stores: dict[bool, LocalStore | FsspecStore] = {}

    def write_record(self, zarr_json: bytes) -> None:
        """Writes the metadata of the group in one piece, whole or not at all."""
        sync(self._writable_store().set("zarr.json", cpu.Buffer.from_bytes(zarr_json)))

    def write_metadata(self, name: str, zarr_json: bytes) -> None:
        """Writes the metadata of an array, likewise; it is opened anew when it is next used."""
        self._arrays = {key: array for key, array in self._arrays.items() if key[0] != name}
        metadata = cpu.Buffer.from_bytes(zarr_json)
        sync(self._writable_store().set(f"{name}/zarr.json", metadata))
        self._metadata[f"{name}/zarr.json"] = metadata

    def array(self, name: str, mode: Literal["r", "r+"]) -> zarr.Array[Any]:
        """An array for reading, or for writing whole blocks.

        Raises:
            FileNotFoundError: there is no such array; or, when it is read, a chunk of it is missing.
            ValueError: its zarr.json or, when it is read, a chunk is not what was written.
        """
        if (name, mode) not in self._arrays:
            if self._local:
                _check_file(f"{self._path}/{name}/zarr.json")
            checked = _Checked(self._store(read_only=True), self._digests) if mode == "r" else self._writable_store()
            # Otherwise zarr leaves out chunks that hold nothing but zeros, and they would count as missing.
            with zarr.config.set({"array.write_empty_chunks": True}):
                self._arrays[name, mode] = zarr.open_array(checked, path=name, mode=mode, zarr_format=3)
        return self._arrays[name, mode]

    def _writable_store(self) -> _WrittenWhileHeld:
        return _WrittenWhileHeld(self._store(read_only=False), self._put, self._hold, self._digests, self._metadata)

    async def _put(self, key: str, value: Buffer) -> None:
        if isinstance(self._filesystem, OwnFolder):
            await asyncio.to_thread(self._filesystem.pipe_file, f"{self._path}/{key}", value.as_numpy_array().data)
        else:
            await self._store(read_only=False).set(key, value)

    def _store(self, *, read_only: bool) -> LocalStore | FsspecStore:
        # Kept: where a file system is not asynchronous, zarr wraps each of its methods, which takes longer than reading a chunk.
        if read_only not in self._stores:
            self._stores[read_only] = self._new_store(read_only)
        return self._stores[read_only]

    def _new_store(self, read_only: bool) -> LocalStore | FsspecStore:
        if self._local:
            # ``_put`` writes.
            return LocalStore(self._path, read_only=True)
        options: dict[str, Any] = {"use_listings_cache": False}
        if "s3" in self._filesystem.protocol:
            # s3fs otherwise asks for the size of everything that it reads, to read what is large in parallel: chunks are not.
            options["max_concurrency"] = 1
        return FsspecStore.from_url(self._filesystem.unstrip_protocol(self._path), options, read_only=read_only)


def array_metadata(layout: Layout) -> bytes:
    """The zarr.json of an array of a layout."""
    files: dict[str, Buffer] = {}
    zarr.create_array(
        MemoryStore(store_dict=files),
        shape=layout.shape,
        chunks=layout.chunk_shape,
        dtype=np.dtype(layout.dtype),
        compressors=[Crc32cCodec().to_dict()],
        filters=None,
        zarr_format=3,
    )
    return files["zarr.json"].to_bytes()


def _check_file(path: str) -> None:
    """Raises ValueError if a local zarr.json is a pipe, a device or far too large: zarr would wait for it, or read all of it."""
    try:
        open_regular(path, LARGEST_METADATA, raising=StoreError).close()
    except StoreError as error:
        raise ValueError(str(error)) from error


@final
class _Checked(WrapperStore[Store]):
    """Refuses what is not what was written. Zarr reads a chunk that is missing as zeros; every chunk of ours was written."""

    def __init__(self, store: Store, digests: Digests) -> None:
        super().__init__(store)
        self._digests = digests

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._digests)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if value is not None:
            # In a thread, so that the next chunk is read meanwhile.
            await asyncio.to_thread(self._digests.check, key, value.as_numpy_array())
        elif not key.endswith("zarr.json"):
            raise FileNotFoundError(f"{key} is missing")
        return value


@final
class _WrittenWhileHeld(WrapperStore[Store]):
    """Breaks off whatever is being written when the lock of the output expires, and notes what has been written."""

    def __init__(
        self,
        store: Store,
        put: Callable[[str, Buffer], Coroutine[Any, Any, None]],
        hold: Callable[[], Hold | None],
        digests: Digests,
        metadata: Mapping[str, Buffer],
    ) -> None:
        """``put``: writes a value under a key; ``metadata``: what this process wrote, and need not read."""
        super().__init__(store)
        self._put, self._hold, self._digests, self._metadata = put, hold, digests, metadata

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._put, self._hold, self._digests, self._metadata)

    @property
    def read_only(self) -> bool:
        return False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if key in self._metadata:
            return self._metadata[key]
        value = await super().get(key, prototype, byte_range)
        if value is not None and key.endswith("zarr.json"):
            await asyncio.to_thread(self._digests.check, key, value.as_numpy_array())
        return value

    async def set(self, key: str, value: Buffer) -> None:
        await while_held(self._hold(), lambda: self._put(key, value))
        self._digests.note(key, value.as_numpy_array())

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await while_held(self._hold(), lambda: self._store.set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        await while_held(self._hold(), lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await while_held(self._hold(), lambda: self._store.delete_dir(prefix))
