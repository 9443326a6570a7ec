"""zarr groups, on disk and elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fsspec import AbstractFileSystem

if TYPE_CHECKING:
    import zarr


def open_group(filesystem: AbstractFileSystem, path: str, mode: Any, *, local: bool) -> zarr.Group:
    """The group of zarr format 3 at a path of a file system; ``local``: of this machine's."""
    import zarr
    from zarr.storage import FsspecStore, LocalStore

    store: LocalStore | FsspecStore
    if local:
        store = LocalStore(path, read_only=mode == "r")
    else:
        url = filesystem.unstrip_protocol(path)
        store = FsspecStore.from_url(url, storage_options={"use_listings_cache": False}, read_only=mode == "r")
    return zarr.open_group(store=store, mode=mode, zarr_format=3)
