"""Chunks of stores elsewhere, copied to this machine to be mapped: checked, within the room that there is, and gone afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.output import StageOutput
from rarkit.errors import StoreError, WriteError
from rarkit.files.atomic import write_bytes
from rarkit.files.locations import reaching
from rarkit.runtime.progress import Reporter
from rarkit.runtime.ranks import Ranks

SCRATCH = "RARKIT_SCRATCH"
"""The environment variable that names the folder for copies; by default, that for temporary files."""
AT_ONCE = 8
"""Chunks, of 16 MiB at most, that are fetched at the same time."""
_CURE = f"Name a folder with room for it in {SCRATCH} (or TMPDIR)."


@contextmanager
def local_chunks(output: StageOutput, name: str, ranks: Ranks, reporter: Reporter) -> Iterator[list[str]]:
    """The paths of an array's chunk files on this machine, to be mapped within the context.

    Where the store is elsewhere, the first rank of each machine copies the chunks into a folder that only this user can enter, and
    compares them with what was written; its other ranks wait, and map the same copies. The copies are removed when all have left
    the context: what is mapped by then can be read until it is unmapped, and takes no room afterwards, however the processes end.

    Args:
        output: a complete one.
        name: of the array.
        ranks: those that call this, all at the same point.
        reporter: shows the progress of the copying.

    Raises:
        IncompleteError: a chunk is missing, or not what was written.
        StoreError: the store cannot be reached, or there is no room for the copies.
    """
    layout, node = output.layout(name), ranks.node
    if output.is_local:
        yield [output.chunk_path(name, block) for block in range(layout.blocks)]
        return
    with ExitStack() as until_mapped:

        def copied() -> str:
            folder = until_mapped.enter_context(_private_folder(f"{name} of {output.path}", layout.blocks * layout.chunk_bytes))
            with output.reading_array(name):
                _copy(output, name, layout, folder, ranks, reporter)
            return folder

        folder = node.told(copied)
        yield [f"{folder}/{block}" for block in range(layout.blocks)]
        node.meet()


@contextmanager
def _private_folder(what: str, size: int) -> Iterator[str]:
    """A new folder for ``size`` bytes. Raises StoreError if there is no room for them."""
    place = os.environ.get(SCRATCH) or tempfile.gettempdir()
    with ExitStack() as made:
        with reaching(place, _CURE, raising=StoreError):
            # Random name, for this user alone.
            folder = made.enter_context(tempfile.TemporaryDirectory(prefix="rarkit-", dir=place))
            free = shutil.disk_usage(folder).free
        if free < size:
            raise _no_room(f"{what} takes {_megabytes(size)}, and {place} has {_megabytes(free)} left")
        yield folder


def _copy(output: StageOutput, name: str, layout: Layout, folder: str, ranks: Ranks, reporter: Reporter) -> None:
    filesystem = output.filesystem

    def copy(block: int) -> None:
        # Without a start, s3fs asks for the size before it reads.
        data = bytes(filesystem.cat_file(output.chunk_path(name, block), start=0))
        output.digests.check(layout.chunk_key(name, block), data)
        try:
            write_bytes(Path(folder, str(block)), data, private=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_room(f"{folder}, which holds what was fetched of {output.path}, is full") from error
            raise

    with (
        reporter.task(f"fetching {name}", layout.blocks, "chunks") as advance,
        # Other file systems' connections are not made for several threads.
        ThreadPoolExecutor(AT_ONCE if filesystem.async_impl else 1) as threads,
    ):
        try:
            for _ in threads.map(copy, range(layout.blocks)):
                advance()
                ranks.check()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _no_room(what: str) -> WriteError:
    return WriteError(f"{what}. {_CURE}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
