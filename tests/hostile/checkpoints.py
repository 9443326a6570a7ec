"""Checkpoints of strangers, in the unfinished output of a training that goes on from them."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store
from rarkit.engine.checkpoint_seal import FORMAT, Seal, Shard, seal_name, shard_name
from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []
RUN = "run small.toml --store store --runs runs --device cpu --until train"
FACTS = {"precision": "float32", "micro_batch_size": 8, "processes": 1, "columns": []}
DEEP = '{"a":' * 100_000


def _unfinished(place: Place) -> tuple[StageOutput, Path]:
    """The output of the training, without all that it holds, and the folder of its files."""
    place.finished()
    [output] = Store(str(place.work / "store")).outputs("train")
    for stage in ("sample", "evaluate"):
        shutil.rmtree(place.work / "store" / stage)
    for path in Path(output.path).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    output._folder.write_record(output.begun().changed(complete=False, arrays={}, files={}, sha256={}))
    files = Path(output.path, "files")
    files.mkdir()
    return output, files


def _sealed(place: Place, *shards: bytes, step: int = 2, facts: dict[str, Any] = FACTS) -> Path:
    """A checkpoint whose seal is right, as somebody makes it who means harm."""
    output, files = _unfinished(place)
    for rank, data in enumerate(shards):
        (files / shard_name(step, rank)).write_bytes(data)
    listed = {
        shard_name(step, rank): Shard(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for rank, data in enumerate(shards)
    }
    seal = Seal(format=FORMAT, output=output.fingerprint, step=step, facts=facts, files=listed)
    (files / seal_name(step)).write_bytes(seal.as_bytes())
    return files


def _shard(entries: object, data: bytes = bytes(8), length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(*shape: int, offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


def _million_tables() -> bytes:
    return _shard(b"{" + b",".join(b'"%d":{}' % number for number in range(10**6)) + b"}")


def _refused(name: str, *shards: bytes | Callable[[], bytes], words: tuple[str, ...] = ("is damaged",), **sealed: Any) -> None:
    def make(place: Place) -> None:
        _sealed(place, *(shard() if callable(shard) else shard for shard in shards), **sealed)

    ENTRIES.append(Entry(name, make, tuple(RUN.split()), code=2, words=(*words, "--force train")))


_refused("a_shard_with_a_header_of_exabytes", _shard({}, length=2**63), words=("its header claims",))
_refused("a_shard_with_a_header_that_is_deep", _shard(DEEP.encode()))
_refused("a_shard_with_a_million_tables", _million_tables)
_refused("a_tensor_of_exabytes", _shard({"a": _entry(2**62, offsets=(0, 2**64))}))
_refused("a_tensor_that_claims_more_than_its_bytes", _shard({"a": _entry(2**31, 2**31)}))
_refused("tensors_in_the_same_bytes", _shard({"a": _entry(2), "b": _entry(2)}))
_refused("a_tensor_whose_name_steers_the_terminal", _shard({"\x1b]0;mine\x07": _entry(2)}))
_refused("pieces_that_overlap", _shard({"a[0:2]": _entry(2)}), _shard({"a[1:3]": _entry(2)}), words=("do not make up all of it",))
_refused("a_piece_at_the_end_of_exabytes", _shard({f"a[{2**62}:{2**62 + 2}]": _entry(2)}), words=("do not make up all of it",))
_refused("a_checkpoint_of_nothing", words=("is of another training",))
_refused("tensors_of_another_training", _shard({"a": _entry(2)}), words=("is of another training", "differ too"))
_refused("facts_of_another_training", _shard({}, b""), facts={"precision": ["a"]}, words=("is of another training",))
_refused("a_step_beyond_all", _shard({}, b""), facts={**FACTS, "columns": ["step"]}, step=10**17, words=("is of another training",))


def _passed_over(name: str, put: Callable[[Place, Path], object], reads: tuple[str, ...] = ()) -> None:
    """No checkpoint: the training begins again, and removes what is there."""

    def make(place: Place) -> None:
        put(place, _unfinished(place)[1])

    def after(place: Place) -> None:
        assert [path.name for path in place.work.glob("store/train/*/files/*")] == ["model.safetensors"]

    ENTRIES.append(Entry(name, make, tuple(RUN.split()), code=0, reads=reads, unwanted=("resuming",), after=after))


def _edited(**fields: object) -> Callable[[Place, Path], object]:
    def put(place: Place, files: Path) -> None:
        seal = Seal(format=FORMAT, output=files.parent.name, step=2, facts=FACTS, files={})
        plain = json.dumps({**seal.model_dump(mode="json"), **fields}, indent=1).encode()
        digest = hashlib.sha256(plain).hexdigest().encode()
        (files / seal_name(2)).write_bytes(plain.replace(b"0" * 64, digest, 1))

    return put


class _Toucher:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _pickled(place: Place, files: Path) -> None:
    data = pickle.dumps(_Toucher(place.outside / "made"))
    (files / "checkpoint-2.pt").write_bytes(data)
    seal = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "output": files.parent.name}
    (files / "checkpoint-2.json").write_text(json.dumps(seal))


_SHARD = {"bytes": 17, "sha256": "0" * 64}
_passed_over("a_seal_that_is_deep", lambda _, files: (files / seal_name(2)).write_text(DEEP))
_passed_over("a_seal_of_files_elsewhere", _edited(files={"../../../../../outside/secret.txt": _SHARD}))
_passed_over("a_seal_of_files_of_another_step", _edited(files={shard_name(3, 0): _SHARD}))
_passed_over("a_seal_of_a_million_files", _edited(files={shard_name(2, rank): _SHARD for rank in range(5000)}))
_passed_over("a_seal_with_facts_that_are_a_list", _edited(facts=[1]))
_passed_over("a_seal_of_two_megabytes", lambda _, files: (files / seal_name(2)).write_bytes(b" " * 2**21))
_passed_over("a_pickle_that_makes_a_folder", _pickled)
_passed_over(
    "a_link_in_the_place_of_a_seal",
    lambda place, files: (files / seal_name(2)).symlink_to(place.outside / "secret.txt"),
    reads=("secret.txt",),
)


@hostile(ENTRIES, RUN, code=2, words=("rank-0.safetensors is a named pipe",))
def a_pipe_in_the_place_of_a_shard(place: Place) -> None:
    files = _sealed(place, b"")
    (files / shard_name(2, 0)).unlink()
    os.mkfifo(files / shard_name(2, 0))


@hostile(ENTRIES, RUN, code=2, words=("rank-0.safetensors is a device",))
def a_link_to_a_device_in_the_place_of_a_shard(place: Place) -> None:
    files = _sealed(place, b"")
    (files / shard_name(2, 0)).unlink()
    (files / shard_name(2, 0)).symlink_to("/dev/zero")
