"""The zarr group of a stage output, opened once. This module imports zarr: import it on use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, final

import numpy as np
import zarr
from fsspec import AbstractFileSystem
from zarr.abc.buffer import Buffer, BufferPrototype
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.hold import Hold, while_held

ZarrArray = zarr.Array[Any]


@final
class ZarrGroup:
    """The group of zarr format 3 at a path, and its arrays: each is opened at its first use and stays open."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, hold: Callable[[], Hold | None], *, local: bool) -> None:
        """``hold``: the permission under which it is written at the moment; ``local``: the file system is this machine's."""
        self._filesystem = filesystem
        self._path = path
        self._hold = hold
        self._local = local
        self._group: zarr.Group | None = None
        self._arrays: dict[tuple[str, str], ZarrArray] = {}

    def write_attributes(self, attributes: dict[str, Any]) -> None:
        """Writes the attributes of the group, with the group itself where there is none: in one piece, whole or not at all."""
        group = self._writable(attributes)
        if group.attrs.asdict() != attributes:
            group.update_attributes(attributes)

    def create_array(self, name: str, layout: Layout) -> None:
        """Creates an array; replaces whatever has its name."""
        self._arrays = {key: array for key, array in self._arrays.items() if key[0] != name}
        # Otherwise zarr leaves out chunks that hold nothing but zeros, and they would count as missing.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._arrays[name, "r+"] = self._writable().create_array(
                name,
                shape=layout.shape,
                chunks=layout.chunk_shape,
                dtype=np.dtype(layout.dtype),
                compressors=[Crc32cCodec().to_dict()],
                filters=None,
                overwrite=True,
            )

    def array(self, name: str, mode: Literal["r", "r+"]) -> ZarrArray:
        """An array for reading, or for writing whole blocks.

        Raises:
            FileNotFoundError: there is no such array; or, when it is read, a chunk of it is missing.
            ValueError: its zarr.json is damaged; or, when it is read, a chunk's checksum is wrong.
        """
        if (name, mode) not in self._arrays:
            store = _NoChunkMissing(self._store(read_only=True)) if mode == "r" else self._writable_store()
            with zarr.config.set({"array.write_empty_chunks": True}):
                self._arrays[name, mode] = zarr.open_array(store, path=name, mode=mode, zarr_format=3)
        return self._arrays[name, mode]

    def _writable(self, attributes: dict[str, Any] | None = None) -> zarr.Group:
        if self._group is None:
            self._group = zarr.open_group(self._writable_store(), mode="a", zarr_format=3, attributes=attributes)
        return self._group

    def _writable_store(self) -> _WrittenWhileHeld:
        return _WrittenWhileHeld(self._store(read_only=False), self._hold)

    def _store(self, *, read_only: bool) -> LocalStore | FsspecStore:
        if self._local:
            return LocalStore(self._path, read_only=read_only)
        options: dict[str, Any] = {"use_listings_cache": False}
        if "s3" in self._filesystem.protocol:
            # s3fs otherwise asks for the size of everything that it reads, to read what is large in parallel: chunks are not.
            options["max_concurrency"] = 1
        return FsspecStore.from_url(self._filesystem.unstrip_protocol(self._path), options, read_only=read_only)


@final
class _NoChunkMissing(WrapperStore[Store]):
    """Zarr reads a chunk that is missing as zeros; every chunk of ours was written, so a missing one has been lost."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if value is None and not key.endswith("zarr.json"):
            raise FileNotFoundError(f"{key} is missing")
        return value


@final
class _WrittenWhileHeld(WrapperStore[Store]):
    """Breaks off whatever is being written when the lock of the output expires."""

    def __init__(self, store: Store, hold: Callable[[], Hold | None]) -> None:
        super().__init__(store)
        self._hold = hold

    def _with_store(self, store: Store) -> Self:
        return type(self)(store, self._hold)

    async def set(self, key: str, value: Buffer) -> None:
        await while_held(self._hold(), lambda: self._store.set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        await while_held(self._hold(), lambda: self._store.set_if_not_exists(key, value))

    async def delete(self, key: str) -> None:
        await while_held(self._hold(), lambda: self._store.delete(key))

    async def delete_dir(self, prefix: str) -> None:
        await while_held(self._hold(), lambda: self._store.delete_dir(prefix))
