"""Reads the records of pre-tokenized files one by one.

A file holds JSON lines, or a JSON array, as each rank of the published script writes one.
"""

from __future__ import annotations

import gzip
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from json import JSONDecodeError, JSONDecoder
from typing import Annotated, Any, BinaryIO, TextIO, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, opened, reaching
from rarkit.files.stored_json import first_mistake, parsed

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PIECE = 2**20
LONGEST = 2**24
"""Bytes of a line, or characters of an array, that are searched for the end of a record, before it is taken for a broken one."""
MOST_AT_ONCE = 2**28
"""Bytes of the records that make a chunk of the store: three times what they have that hold nothing but tokens."""
_SPACE = re.compile(r"\s*")

Number = Annotated[int, Field(ge=0, lt=2**31)]


@final
class Tokens(BaseModel):
    """What a record says: the class of an image, and its codes."""

    model_config = ConfigDict(strict=True)

    class_id: Number
    tokens: list[Number]


@final
@dataclass(frozen=True)
class Record:
    """One record, not checked yet."""

    file: TokenFile
    number: int
    """Of its line, or of the record in an array; from 1."""
    data: Any
    """Of a line, the bytes, which skipping need not parse; of an array, what they say."""
    size: int
    """Bytes of the line, or characters in the array."""

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file.name}, record {self.number}" if self.file.is_array else f"{self.file.name}:{self.number}"

    def content(self) -> bytes:
        """What tells it from other records: the line, or of an array, what it says."""
        return self.data if isinstance(self.data, bytes) else json.dumps(self.data).encode()

    def value(self) -> Tokens:
        """What it says. Raises ValueError if it is no such record; the message is short."""
        try:
            if isinstance(self.data, bytes):
                return parsed(Tokens, self.data, LONGEST)
            return Tokens.model_validate(self.data)
        except ValidationError as error:
            raise ValueError(first_mistake(error)) from error


@final
class TokenFile:
    """One file, decompressed as its name says."""

    def __init__(self, name: str) -> None:
        """Reads its beginning. Raises DatasetError if it is missing."""
        self.name = name
        with reaching(name), self._readable(), self._opened("rb") as file:
            beginning = file.read(PIECE)
        self.is_array = beginning.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"["

    def count(self) -> int:
        """How many records there are. Raises DatasetError if an array is broken."""
        return sum(1 for _ in self.records())

    def records(self) -> Iterator[Record]:
        """The records in order; empty lines are none. Raises DatasetError if an array, or the file's compression, is broken."""
        with reaching(self.name), self._readable(), self._opened("rt" if self.is_array else "rb") as file:
            yield from self._of_array(file) if self.is_array else self._of_lines(file)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Around the reading of the file: what is wrong with its content is no trouble with its place."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
            raise DatasetError(f"{self.name} is cut off, or not compressed as its name says ({error}). Fetch it again.") from error
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.name} is not text in UTF-8 ({error.reason}). Write it again in UTF-8.") from error

    def _of_lines(self, file: BinaryIO) -> Iterator[Record]:
        number = blank = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            is_blank = not text or text.isspace()
            blank = blank + len(line) if is_blank else 0
            if len(line) > LONGEST or blank > LONGEST:
                raise DatasetError(f"{self.name}:{number}: there is no record within {LONGEST:,} bytes. Write the file again.")
            if not is_blank:
                yield Record(self, number, text, len(text))

    def _of_array(self, file: TextIO) -> Iterator[Record]:
        decoder, number = JSONDecoder(), 0
        text, position = file.read(PIECE), 0

        def skipped(position: int) -> int:
            """The next position that is no white space, after reading on if the text ends before it."""
            nonlocal text
            blank = 0
            while True:
                beyond = _SPACE.match(text, position)
                assert beyond is not None, "no white space is some, too"
                position = beyond.end()
                if position < len(text) or not (more := file.read(PIECE)):
                    return position
                blank += len(text)
                if blank > LONGEST:
                    raise self._broken(number, f"is followed by more than {LONGEST:,} characters of white space")
                text, position = more, 0

        position = skipped(skipped(0) + 1)
        while text[position : position + 1] != "]":
            number += 1
            while True:
                try:
                    start = position
                    value, position = decoder.raw_decode(text, start)
                    break
                except RecursionError as error:
                    raise self._broken(number, "is nested too deep") from error
                except JSONDecodeError as error:
                    more = file.read(PIECE) if len(text) - position < LONGEST else ""
                    if not more:
                        raise self._broken(number, "is not JSON, or ends too early") from error
                    text, position = text[position:] + more, 0
            yield Record(self, number, _of_use(value), position - start)
            position = skipped(position)
            if text[position : position + 1] == ",":
                position = skipped(position + 1)
            elif text[position : position + 1] != "]":
                raise self._broken(number, "is not followed by a comma or the end of the array")
        if skipped(position + 1) < len(text):
            raise self._broken(number, "is the last of the array, but there is more after it")

    def _broken(self, number: int, reason: str) -> DatasetError:
        return DatasetError(f"{self.name}: record {number} of its JSON array {reason}. Write the file again.")

    def _opened(self, mode: str) -> Any:
        return opened(self.name, mode, compression="infer", encoding="utf-8-sig")


def token_files(places: Sequence[str]) -> list[TokenFile]:
    """The files that paths, fsspec URLs and patterns with ``*``, ``?`` or ``[…]`` name; those of a pattern in natural order.

    Raises:
        DatasetError: none is given, one is missing, a pattern matches none, or one is named twice.
    """
    if not places:
        raise DatasetError("there is no file to import. Give one or several.")
    names = [name for place in places for name in _expanded(place)]
    seen = set()
    for name in names:
        # A pattern gives absolute paths, where a name may be relative.
        filesystem, path = filesystem_of(name)
        key = filesystem.unstrip_protocol(path), name.partition("::")[2]
        if key in seen:
            raise DatasetError(f"{name} is named twice, and its images would be there twice. Name each file once.")
        seen.add(key)
    return [TokenFile(name) for name in names]


def _expanded(place: str) -> list[str]:
    if not re.search(r"[*?\[]", place):
        return [place]
    filesystem, path = filesystem_of(place)
    with reaching(place):
        if filesystem.exists(path):
            return [place]
        head, link, tail = place.partition("::")
        matching = sorted(filesystem.glob(path), key=_natural)
    if not matching:
        raise DatasetError(f"no file matches {place}. Check the pattern.")
    protocol = f"{head.split('://')[0]}://" if "://" in head else ""
    return [f"{protocol}{match}{link}{tail}" for match in matching]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key in which 2 comes before 10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]


def in_blocks(files: Sequence[TokenFile], sizes: Sequence[int]) -> Iterator[list[Record]]:
    """The records of all files, as many at a time as ``sizes`` says. Raises DatasetError if these are far too large."""
    records = (record for file in files for record in file.records())
    for size in sizes:
        block: list[Record] = []
        total = 0
        for record in islice(records, size):
            total += record.size
            if total > MOST_AT_ONCE:
                raise DatasetError(
                    f"{record.place}: this and the {len(block):,} records before it have more than {MOST_AT_ONCE:,} bytes. Write "
                    "the file again, with nothing but class_id and tokens in a record."
                )
            block.append(record)
        yield block


def _of_use(value: Any) -> Any:
    """What is read of a record: what else it has would be kept as long as its chunk."""
    return {key: value[key] for key in ("class_id", "tokens") if key in value} if isinstance(value, dict) else value
