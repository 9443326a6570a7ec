"""Bundles of strangers: one file that names parts, sizes and files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
SAMPLE = "sample bundle.safetensors --device cpu"
WHOLE: dict[str, Any] = {
    "format": 1,
    "name": "small",
    "title": "Small",
    "seed": 0,
    "images": {"height": 4, "width": 4, "channels": 1, "class_names": ["0", "1"]},
    "tokenizer": {"name": "pixel"},
    "scan_order": {"name": "raster"},
    "attention": {"name": "sdpa"},
    "model": {"name": "rar", "hidden_size": 8, "depth": 1, "num_heads": 2},
    "sample": {},
    "digest": hashlib.sha256(json.dumps(["model.lm_head.bias", "float32", [2]]).encode() + bytes(8)).hexdigest(),
}


def _bundle(place: Place, content: str | None = None, **changes: Any) -> None:
    """A bundle with one small tensor."""
    content = json.dumps({**WHOLE, **changes}) if content is None else content
    tensor = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {"bundle": content}, "model.lm_head.bias": tensor}).encode()
    place.write("bundle.safetensors", len(header).to_bytes(8, "little") + header + bytes(8))


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors", "numbers"))
def a_model_of_terabytes(place: Place) -> None:
    _bundle(place, model={"name": "rar", "hidden_size": 65536, "depth": 4096, "num_heads": 2})


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors is damaged: its model has not the sizes that it says",))
def a_model_of_other_tensors(place: Place) -> None:
    _bundle(place)


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors is damaged (its arrays are not those that were written)",))
def arrays_of_another_bundle(place: Place) -> None:
    _bundle(place, digest="0" * 64)


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors is damaged (digest: Field required)",))
def a_bundle_that_says_nothing_of_its_arrays(place: Place) -> None:
    _bundle(place, json.dumps({key: value for key, value in WHOLE.items() if key != "digest"}))


@hostile(ENTRIES, SAMPLE, code=2, words=("a grid of 8,000×8,000 has more than",))
def a_grid_of_millions(place: Place) -> None:
    _bundle(place, images={**WHOLE["images"], "height": 8000, "width": 8000})


@hostile(ENTRIES, SAMPLE, code=2, words=("wants to read", "tokenizer.weights", "refused"))
def a_tokenizer_that_reads_a_file(place: Place) -> None:
    images = {**WHOLE["images"], "height": 256, "width": 256, "channels": 3}
    _bundle(place, images=images, tokenizer={"name": "maskgit_vqgan", "weights": f"{place.outside}/secret.txt"})


@hostile(ENTRIES, SAMPLE, code=2, words=("wants to read", "refused"))
def a_tokenizer_that_calls(place: Place) -> None:
    images = {**WHOLE["images"], "height": 256, "width": 256, "channels": 3}
    _bundle(place, images=images, tokenizer={"name": "maskgit_vqgan", "weights": f"{place.address}/vqgan.bin"})


@hostile(ENTRIES, SAMPLE, code=2, words=("'pixell'", "did you mean 'pixel'"))
def a_part_that_is_not_installed(place: Place) -> None:
    _bundle(place, tokenizer={"name": "pixell"})


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors",))
def a_part_whose_name_steers_the_terminal(place: Place) -> None:
    _bundle(place, tokenizer={"name": "\x1b]0;mine\x07\x1b[31m"}, title="\x1b[31m\n\n\n")


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors is damaged",))
def json_nested_without_an_end(place: Place) -> None:
    _bundle(place, "[" * 2**20)


@hostile(ENTRIES, SAMPLE, code=2, words=("bundle.safetensors is damaged",))
def no_json_at_all(place: Place) -> None:
    _bundle(place, "\ud800")


@hostile(ENTRIES, SAMPLE, code=2, words=("was written by a newer rarkit (format 7; this one reads up to 1)",))
def a_bundle_of_the_future(place: Place) -> None:
    _bundle(place, format=7)
