"""Names of shards, and what lies in one: its samples, in order, read from its start.

Uses the WebDataset library's own grouping of files, in bounded memory.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import IO, Any, final

from rarkit.datasets.image_listing import SYSTEM_FOLDERS
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching, reads_next

Sample = dict[str, Any]
MOST_FILES = 64
"""Maximum number of files of a sample. Names such as ``photo.0001.jpg`` would make one sample of a whole shard."""


def expanded(pattern: str) -> list[str]:
    """Expands groups, ranges (zero-padded as written) and alternatives: ``a-{08..10}{x,y}::b`` → a-08x, a-08y, a-09x, …, b."""
    return [name for group in _groups(pattern) for name in _expanded_group(group)]


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
    return ["".join(chosen) for chosen in product(*choices)]


def _choices(inner: str) -> list[str]:
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", inner)
    if bounds is None:
        return inner.split(",")
    first, last = bounds.groups()
    if int(first) > int(last):
        raise DatasetError(f"the range {{{inner}}} in the name of the shards is empty: write the smaller number first")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


@final
class Shard:
    """A shard that is read sequentially from its start."""

    def __init__(self, number: int, place: str, count: int) -> None:
        """``count``: how many samples it should contain."""
        self.number, self.place, self.position = number, place, 0
        self._count = count
        self._samples = samples(place)

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


def samples(place: str) -> Iterator[Sample]:
    """The samples of a shard. Raises DatasetError if it is damaged or not a shard."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with _opened(place) as stream:
        files = tar_file_expander([{"url": place, "stream": stream}], select_files=_is_read)
        yield from group_by_keys(_bounded(files, place))


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
    """The names in a shard that the library reads."""
    with tarfile.open(fileobj=stream) as files:
        for member in files:
            if member.isreg() and not re.match(r"__[^/]*__($|/)", member.name) and _is_read(member.name):
                yield member.name
            # Otherwise all members are kept; nothing goes back to them.
            files.members = []  # type: ignore[attr-defined]


def _is_read(name: str) -> bool:
    """Whether a file is the user's: systems add files such as ``._0001.jpg``, which would be samples of their own."""
    steps = name.split("/")
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
    with reaching(place), filesystem.open(path, "rb") as stream:
        try:
            yield stream
        except (tarfile.TarError, ValueError, EOFError) as error:
            reason = str(error.args[0]).split(" @ ")[0] if error.args else ""
            twice, is_duplicate, _ = reason.partition(": duplicate file name")
            if is_duplicate:
                raise DatasetError(
                    f"{place} has the file {twice!r} twice, or with its extension in upper and in lower case. Remove one of them."
                ) from error
            raise DatasetError(
                f"{place} is damaged or not a shard ({type(error).__name__}: {reason[:200]}). Fetch it again."
            ) from error
