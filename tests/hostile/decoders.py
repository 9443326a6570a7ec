"""Files that expand, claim or never end."""

from __future__ import annotations

import gzip

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []


IMPORT = "--grid 2x3 --codebook-size 16 --classes 10"


def _gzipped(piece: bytes, count: int) -> bytes:
    """What expands to many times a piece."""
    return gzip.compress(piece) * count


@hostile(ENTRIES, f"tokens import tokens.jsonl.gz store {IMPORT}", code=2, words=("tokens.jsonl.gz:1", "there is no record within"))
def one_line_of_four_gigabytes(place: Place) -> None:
    place.write("tokens.jsonl.gz", gzip.compress(b'{"class_id": 1, "tokens": [') + _gzipped(b"1," * 2**23, 256))


@hostile(ENTRIES, f"tokens import tokens.json.gz store {IMPORT}", code=2, words=("tokens.json.gz", "of white space"))
def an_array_of_nothing_but_white_space(place: Place) -> None:
    place.write("tokens.json.gz", gzip.compress(b"[") + _gzipped(b" " * 2**24, 256))


@hostile(ENTRIES, f"tokens import tokens.json store {IMPORT}", code=2, words=("record 1 of its JSON array is nested too deep",))
def an_array_nested_without_an_end(place: Place) -> None:
    place.write("tokens.json", "[" * 2**22)
