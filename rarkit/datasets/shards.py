"""Names of shards, and what lies in one: its samples, in order, read from its start.

Uses the WebDataset library's own grouping of files, in bounded memory.
"""

from __future__ import annotations

import gzip
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from math import prod
from typing import IO, Any, final

from rarkit.datasets.image_listing import SYSTEM_FOLDERS
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching, reads_next
from rarkit.files.regular import open_on
from rarkit.files.tar_members import is_sparse, members

Sample = dict[str, Any]
MOST_SHARDS, MOST_DIGITS = 2**20, 18
"""Shards that a pattern may stand for, and digits of their numbers."""
MOST_FILES = 64
"""Maximum number of files of a sample. Names such as ``photo.0001.jpg`` would make one sample of a whole shard."""


def expanded(pattern: str) -> list[str]:
    """Expands groups, ranges (zero-padded as written) and alternatives: ``a-{08..10}{x,y}::b`` → a-08x, a-08y, a-09x, …, b."""
    names: list[str] = []
    for group in _groups(pattern):
        names += _expanded_group(group)
        if len(names) > MOST_SHARDS:
            raise _too_many(pattern)
    return names


def _groups(pattern: str) -> list[str]:
    """The parts that ``::`` joins, as in the WebDataset library; but a chain of file systems, as in fsspec, is one part."""
    groups: list[str] = []
    chained = False
    for link in pattern.split("::"):
        if chained:
            groups[-1] += f"::{link}"
        else:
            groups.append(link)
        chained = reads_next(link)
    return groups


def _expanded_group(group: str) -> list[str]:
    pieces = re.split(r"\{([^{}]*)\}", group)
    choices = [_choices(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
    if prod(map(len, choices)) > MOST_SHARDS:
        raise _too_many(group)
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inner: str) -> list[str]:
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if bounds is None:
        return inner.split(",")
    first, last = bounds.groups()
    if max(len(first), len(last)) > MOST_DIGITS:
        raise _too_many(inner)
    if int(first) > int(last):
        raise DatasetError(f"the range {{{inner}}} in the name of the shards is empty: write the smaller number first")
    if int(last) - int(first) >= MOST_SHARDS:
        raise _too_many(inner)
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _too_many(pattern: str) -> DatasetError:
    return DatasetError(f"{pattern[:100]} stands for more than {MOST_SHARDS:,} shards. Check the numbers in the pattern.")


@final
class Shard:
    """A shard that is read sequentially from its start."""

    def __init__(self, number: int, place: str, count: int, wanted: Mapping[str, int]) -> None:
        """``count``: how many samples it should contain; ``wanted``: as of ``samples``."""
        self.number, self.place, self.position = number, place, 0
        self._count = count
        self._samples = samples(place, wanted)

    def sample(self, place: int) -> Sample:
        """The sample at a position that has not been passed yet."""
        for sample in self._samples:
            self.position += 1
            if self.position > place:
                if self.position == self._count and next(self._samples, None) is not None:
                    break
                return sample
        more_or_fewer = "more" if self.position == self._count else "fewer"
        raise DatasetError(
            f"{self.place} contains {more_or_fewer} samples than the {self._count:,} counted earlier or stated in sizes. "
            "Fetch the shard again, or correct sizes."
        )


def samples(place: str, wanted: Mapping[str, int]) -> Iterator[Sample]:
    """The samples of a shard. Only the wanted files are read, the others are empty.

    Args:
        place: a path or any fsspec URL.
        wanted: how many bytes a file may have, by its extension in lower case. One that has more, or is sparse, is a ``str``
            instead of its bytes: why it was not read.

    Raises:
        DatasetError: it is damaged or not a shard.
    """
    from webdataset.tariterators import group_by_keys

    with _opened(place) as stream:
        yield from group_by_keys(_bounded(_files(stream, place, wanted), place))


def _files(stream: IO[bytes], place: str, wanted: Mapping[str, int]) -> Iterator[Sample]:
    from webdataset.tariterators import base_plus_ext

    for archive, member in members(stream, "r|*"):
        if not _is_read(member):
            continue
        data: bytes | str = b""
        most = wanted.get((base_plus_ext(member.name)[1] or "").lower())
        if most is not None and is_sparse(member):
            data = f"{place}: {member.name} is a sparse file, which no image is. Write the shard again without it, or its holes."
        elif most is not None and member.size > most:
            data = f"{place}: {member.name} has {member.size:,} bytes, where at most {most:,} are read. Check what it is."
        elif most is not None and (file := archive.extractfile(member)) is not None:
            data = file.read()
        yield {"fname": member.name, "data": data, "__url__": place}


def count_samples(place: str) -> int:
    """Counts the samples by reading only the names in a shard. Raises DatasetError if it is damaged or not a shard."""
    from webdataset.tariterators import group_by_keys

    with _opened(place) as stream:
        files = ({"fname": name, "data": b"", "__url__": place} for name in _names(stream))
        return sum(1 for _ in group_by_keys(_bounded(files, place)))


def scattered_files(place: str, key: str) -> list[str]:
    """The files of a sample, if they do not follow each other in the shard; empty if they do."""
    from webdataset.tariterators import base_plus_ext

    runs: list[str] = []
    previous = None
    with _opened(place) as stream:
        for name in _names(stream):
            base, _ = base_plus_ext(name)
            if base == key and previous != key:
                runs.append(name)
            previous = base
    return runs if len(runs) > 1 else []


def _names(stream: IO[bytes]) -> Iterator[str]:
    """The names of the files in a shard that are read."""
    return (member.name for _, member in members(stream, "r:*") if _is_read(member))


def _is_read(member: tarfile.TarInfo) -> bool:
    """Whether a member is a file, and the user's: systems add files such as ``._0001.jpg``, which would be samples of their own.

    Names such as ``__index__`` are the library's.
    """
    if not member.isreg() or re.match(r"__[^/]*__($|/)", member.name):
        return False
    steps = member.name.split("/")
    return not any(step in SYSTEM_FOLDERS or (step.startswith(".") and step not in (".", "..")) for step in steps)


def _bounded(files: Iterator[Sample], place: str) -> Iterator[Sample]:
    """The same files, as long as no sample has too many: the library keeps all files of a sample in memory."""
    from webdataset.tariterators import base_plus_ext

    key, count = None, 0
    for file in files:
        base, _ = base_plus_ext(file.get("fname", ""))
        key, count = base, count + 1 if base == key else 1
        if base is not None and count > MOST_FILES:
            raise DatasetError(
                f"{place}: more than {MOST_FILES} files belong to one sample, {key!r}, the last of them {file['fname']!r}: a "
                "sample's name ends at its first dot. Write the shard with names without other dots."
            )
        yield file


@contextmanager
def _opened(place: str) -> Iterator[IO[bytes]]:
    filesystem, path = filesystem_of(place)
    with reaching(place), open_on(filesystem, path) as stream:
        try:
            yield stream
        except (tarfile.TarError, ValueError, EOFError, zlib.error, lzma.LZMAError, RecursionError, OSError) as error:
            # What bz2 says of damaged data is an OSError without a number.
            if isinstance(error, OSError) and (error.errno is not None or type(error) not in (OSError, gzip.BadGzipFile)):
                raise
            reason = str(error.args[0]).split(" @ ")[0] if error.args else ""
            twice, is_duplicate, _ = reason.partition(": duplicate file name")
            if is_duplicate:
                raise DatasetError(
                    f"{place} has the file {twice!r} twice, or with its extension in upper and in lower case. Remove one of them."
                ) from error
            raise DatasetError(
                f"{place} is damaged or not a shard ({type(error).__name__}: {reason[:200]}). Fetch it again."
            ) from error
