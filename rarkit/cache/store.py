"""The store: where stage outputs live, any fsspec URL. Reading what is there needs neither zarr nor torch."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import final

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from rarkit.cache.fingerprint import is_fingerprint
from rarkit.cache.output import StageOutput
from rarkit.cache.record import Record
from rarkit.errors import RarkitError, StoreError
from rarkit.files.locations import filesystem_of, reaching
from rarkit.files.own_folder import OwnFolder


@final
class Store:
    """A folder of stage outputs: ``<url>/<stage>/<fingerprint>/``."""

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Opens a store; nothing is created until something is written.

        Args:
            url: a local path or any fsspec URL (``s3://…`` needs ``rarkit[s3]``).

        Raises:
            StoreError: this is no path or URL, the protocol is unknown, what it needs is not installed, or a local file is in the place.
        """
        if not isinstance(url, str | os.PathLike):
            raise StoreError(f"found {url!r:.80} where a store is needed. Pass its path or URL, or leave it out.")
        url = os.fspath(url)
        filesystem, root = filesystem_of(url, raising=StoreError, use_listings_cache=False)
        if isinstance(filesystem, LocalFileSystem) and filesystem.isfile(root):
            raise StoreError(f"{url} is a file, where the folder of a store is needed. Check the path.")
        self.url = url
        self.root: str = root.rstrip("/")
        self.filesystem: AbstractFileSystem = filesystem
        if isinstance(filesystem, LocalFileSystem):
            self.filesystem = OwnFolder(self.root or "/", use_listings_cache=False)

    @property
    def address(self) -> str:
        """The store's URL, as it can be opened from any working directory."""
        return str(self.filesystem.unstrip_protocol(self.root))

    def exists(self) -> bool:
        """Whether anything was written there. Raises StoreError if it cannot be reached."""
        with reaching(self.url, "Check the store's address and permissions.", raising=StoreError):
            return bool(self.filesystem.exists(self.root))

    def output(self, stage: str, fingerprint: str) -> StageOutput:
        """The output of a stage under a fingerprint, whether or not it is there yet."""
        return StageOutput(self.filesystem, f"{self.root}/{stage}/{fingerprint}", stage, fingerprint)

    def outputs(self, stage: str | None = None) -> Iterator[StageOutput]:
        """All outputs in the store (of one stage), complete or not, in alphabetical order; the record of each has been read.

        An output that has lost its record is among them.
        """
        stages = [stage] if stage is not None else self._folders(self.root)
        for name in stages:
            for fingerprint in self._folders(f"{self.root}/{name}"):
                output = self.output(name, fingerprint)
                if output.exists() or (is_fingerprint(fingerprint) and output.has_remains()):
                    yield output

    def remove(self, output: StageOutput) -> None:
        """Deletes an output.

        Raises:
            LockedError: another process is writing it, or reads it for what it is writing.
        """
        output.remove(lambda: self.made_from(output))

    def made_from(self, output: StageOutput) -> StageOutput | None:
        """An output of this store that another process is making, and reads this one for; None if there is none."""
        for stage in self._folders(self.root):
            for fingerprint in self._folders(f"{self.root}/{stage}"):
                other = self.output(stage, fingerprint)
                if other.reader_of(output.name) is not None:
                    return other
        return None

    def records(self, stage: str) -> Iterator[Record]:
        """The records of a stage's outputs, but for those that are damaged or of a newer rarkit."""
        for output in self.outputs(stage):
            # It has been read: no trouble with the store itself is passed over here.
            try:
                record = output.record()
            except StoreError:
                continue
            if record is not None:
                yield record

    def _folders(self, path: str) -> list[str]:
        with reaching(self.url, "Check the store's address and permissions.", raising=StoreError):
            try:
                entries = self.filesystem.ls(path, detail=True)
            except FileNotFoundError:
                return []
        names = (entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] == "directory")
        return sorted(names)

    def check_writable(self) -> None:
        """Raises StoreError unless a file can be written and removed again."""
        # Of its own: another process may look at the same time.
        probe = f"{self.root}/.rarkit-probe-{secrets.token_hex(8)}"
        made = not self.filesystem.exists(self.root)
        try:
            self.filesystem.makedirs(self.root, exist_ok=True)
            self.filesystem.pipe_file(probe, json.dumps("probe").encode())
            self.filesystem.rm_file(probe)
        except RarkitError:
            raise
        except Exception as error:
            # Each filesystem has exceptions of its own (botocore's are no OSErrors): whichever it was, the store cannot be written.
            raise StoreError(
                f"store {self.url!r} cannot be written: {type(error).__name__}: {error}. "
                "Check its permissions and free space, or choose another with --store."
            ) from error
        if made:
            # Another process may have begun to write there.
            with suppress(OSError):
                self.filesystem.rmdir(self.root)


def output_at(url: str, stage: str) -> StageOutput:
    """An output of a stage at a URL of its own, outside any store and under no fingerprint.

    Raises:
        StoreError: as ``Store``.
    """
    folder = Store(url)
    output = StageOutput(folder.filesystem, folder.root, stage, folder.root.rsplit("/", 1)[-1])
    output.cure = f"Import its tokens again, or run the recipe that made it with --force {stage}."
    return output
