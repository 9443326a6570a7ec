"""Finished stores, damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from tests.damages import without_seal
from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
RUN = "run small.toml --store store --runs runs --device cpu"


def _output(place: Place, stage: str) -> Path:
    place.finished()
    return next((place.work / "store" / stage).iterdir())


def _without(place: Place, *stages: str) -> None:
    for stage in stages:
        shutil.rmtree(place.work / "store" / stage)


def _record(output: Path, **fields: object) -> None:
    """Other fields in the record, as of an older rarkit: without a seal."""
    metadata = without_seal(output)
    metadata["attributes"]["rarkit"] |= fields
    (output / "zarr.json").write_text(json.dumps(metadata))


@hostile(ENTRIES, RUN, code=2, words=("the output of stage 'tokenize'", "is not what was written", "--force tokenize"))
def chunks_in_each_other_s_place(place: Place) -> None:
    output = _output(place, "tokenize")
    first, second = (output / "train_tokens/c" / str(block) / "0" for block in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    _without(place, "train", "sample", "reference", "evaluate")


@hostile(ENTRIES, RUN, code=2, words=("the output of stage 'fit'", "is not what was written", "--force fit"))
def a_codebook_of_another_byte_order(place: Place) -> None:
    metadata = _output(place, "fit") / "state_codebook/zarr.json"
    metadata.write_text(metadata.read_text().replace('"little"', '"big"'))
    _without(place, "tokenize", "train", "sample", "reference", "evaluate")


@hostile(ENTRIES, RUN, code=2, words=("tokenize", "in the place of this one", "--force train"))
def an_output_in_the_place_of_another(place: Place) -> None:
    output = _output(place, "train")
    shutil.rmtree(output)
    shutil.copytree(next((place.work / "store/tokenize").iterdir()), output)


@hostile(
    ENTRIES, "sample runs/small --store store --class 0 -o a.png --device cpu", code=2, words=("model.safetensors", "--force train")
)
def a_model_with_a_flipped_bit(place: Place) -> None:
    model = _output(place, "train") / "files/model.safetensors"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))


@hostile(ENTRIES, "plan small.toml --store store", code=0, words=("damaged", "chunks are more than"))
def a_record_of_endless_chunks(place: Place) -> None:
    _record(_output(place, "train"), arrays={"log_loss": {"shape": [10**15], "dtype": "float64", "rows": 1}})


@hostile(ENTRIES, "cache ls --store store", code=0, words=("damaged",))
def a_record_nested_without_an_end(place: Place) -> None:
    (_output(place, "fit") / "zarr.json").write_text('{"attributes":' * 10**6)


@hostile(ENTRIES, "plan small.toml --store store", code=0, words=("its zarr.json is damaged",))
def a_record_of_files_elsewhere(place: Place) -> None:
    _record(_output(place, "train"), files={"../../../../../outside/secret.txt": 17})


@hostile(ENTRIES, "plan small.toml --store store", code=0, words=("is a named pipe",))
def a_pipe_for_a_record(place: Place) -> None:
    record = _output(place, "sample") / "zarr.json"
    record.unlink()
    os.mkfifo(record)


@hostile(ENTRIES, "plan small.toml --store store", code=0, words=("bytes instead of",))
def a_device_for_a_chunk(place: Place) -> None:
    chunk = _output(place, "tokenize") / "train_labels/c/0"
    chunk.unlink()
    chunk.symlink_to("/dev/zero")


@hostile(ENTRIES, RUN, code=2, words=("the zarr.json of array 'state_codebook' has 0 bytes", "--force fit"))
def a_device_for_metadata(place: Place) -> None:
    output = _output(place, "fit")
    without_seal(output)
    metadata = output / "state_codebook/zarr.json"
    metadata.unlink()
    metadata.symlink_to("/dev/zero")
    _without(place, "tokenize", "train", "sample", "reference", "evaluate")
