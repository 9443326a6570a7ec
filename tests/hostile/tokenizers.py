"""Tokenizers of strangers: one file that names a part, its settings and its arrays."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
EVALUATE = "tokenizer evaluate one.safetensors --data digits --device cpu"
PLAN = "plan recipe.toml"


def _file(place: Place, content: str | None = None, array: tuple[int, ...] = (2, 4), **changes: Any) -> None:
    """A file with one small array, and a recipe that uses it."""
    digest = hashlib.sha256(json.dumps(["codebook", "float32", array]).encode() + bytes(32)).hexdigest()
    part = {"name": "patch_kmeans", "codes": 2}
    said = {"format": 1, "part": part, "version": 1, "made_by": "rarkit", "rarkit": "0.1.0", "digest": digest}
    content = json.dumps(said | changes) if content is None else content
    tensor = {"dtype": "F32", "shape": array, "data_offsets": [0, 32]}
    header = json.dumps({"__metadata__": {"tokenizer": content}, "codebook": tensor}).encode()
    place.write("one.safetensors", len(header).to_bytes(8, "little") + header + bytes(32))
    place.recipe('unset = ["tokenizer"]\n[tokenizer]\nweights = "one.safetensors"')


@hostile(ENTRIES, EVALUATE, code=2, words=("a codebook of shape (2, 4) does not fit 65536 codes",))
def a_codebook_that_is_not_there(place: Place) -> None:
    _file(place, part={"name": "patch_kmeans", "codes": 65536, "patch": 1})


@hostile(ENTRIES, EVALUATE, code=2, words=("one.safetensors is damaged (its arrays are not those that were written)",))
def arrays_of_another_file(place: Place) -> None:
    _file(place, part={"name": "patch_kmeans", "codes": 2, "patch": 2}, digest="0" * 64)


@hostile(ENTRIES, EVALUATE, code=2, words=("wants to read", "refused"))
def a_part_that_calls(place: Place) -> None:
    _file(place, part={"name": "maskgit_vqgan", "weights": f"{place.address}/vqgan.bin"})


@hostile(ENTRIES, PLAN, code=0, words=("weights are missing or unusable", "wants to read", "secret.txt", "refused"))
def a_part_that_reads_a_file(place: Place) -> None:
    _file(place, part={"name": "maskgit_vqgan", "weights": f"{place.outside}/secret.txt"})


@hostile(ENTRIES, PLAN, code=0, words=("which is not installed here",))
def a_distribution_whose_name_steers_the_terminal(place: Place) -> None:
    _file(place, part={"name": "\x1b[31m"}, made_by="\x1b]0;mine\x07\n\n\u202e")


@hostile(ENTRIES, EVALUATE, code=2, words=("one.safetensors is damaged",))
def json_nested_without_an_end(place: Place) -> None:
    _file(place, "[" * 2**20)
