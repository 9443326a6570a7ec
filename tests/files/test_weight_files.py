"""Sharded checkpoints load whole, from disk and from elsewhere, or say what is missing."""

from __future__ import annotations

import json

import fsspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from rarkit.errors import WeightsError
from rarkit.files.restraint import fetching
from rarkit.files.weight_files import local_copy, shards
from rarkit.files.weights import checksum, read_tensors
from rarkit.models import load_rar
from tests.models.rar.small import TINY, lively

STATE = lively().state_dict()


def write_sharded(folder, state=STATE, count=3, stem="model", suffix=".safetensors"):
    """Writes a checkpoint as transformers does; returns its index."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: f"{stem}-{index % count + 1:05}-of-{count:05}{suffix}" for index, name in enumerate(state)}
    for file in set(files.values()):
        shard = {name: state[name] for name in state if files[name] == file}
        save_file(shard, folder / file) if suffix == ".safetensors" else torch.save(shard, folder / file)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def same(model):
    return all(torch.equal(tensor, STATE[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("stem", "suffix"), [("model", ".safetensors"), ("pytorch_model", ".bin")])
def test_shards_are_loaded_by_their_index_or_folder(tmp_path, stem, suffix):
    index = write_sharded(tmp_path / "sharded", stem=stem, suffix=suffix)
    for place in (index, tmp_path / "sharded"):
        assert same(load_rar(place, TINY))
    half = load_rar(index, TINY, dtype=torch.bfloat16).state_dict()
    assert all(torch.equal(tensor, STATE[name].to(torch.bfloat16)) for name, tensor in half.items())
    wrapped = write_sharded(tmp_path / "wrapped", {f"module.{name}": tensor for name, tensor in STATE.items()})
    assert same(load_rar(wrapped, TINY))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}(\.[a-z0-9]{1,3})?", fullmatch=True), st.integers(0, 4), min_size=1))
def test_every_tensor_is_in_one_shard(files):
    contents = json.dumps({"weight_map": {name: f"{file}.safetensors" for name, file in files.items()}}).encode()
    named = shards(contents, "place")
    assert {name: file for file, names in named.items() for name in names} == {n: f"{f}.safetensors" for n, f in files.items()}


def test_the_checksum_covers_every_shard(tmp_path):
    index = write_sharded(tmp_path)
    first = checksum(index)
    assert checksum(tmp_path) == first
    shard = next(tmp_path.glob("model-00002*"))
    save_file({name: tensor + 1 for name, tensor in read_tensors(shard)[0].items()}, shard)
    assert checksum(index) != first


def test_shards_elsewhere_are_fetched_with_their_index(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_sharded(tmp_path / "here")
    fsspec.filesystem("memory").put(str(tmp_path / "here"), "/weights-elsewhere", recursive=True)
    place = "memory://weights-elsewhere/model.safetensors.index.json"
    with fetching("all"):
        copy = local_copy(place)
        assert len(list(copy.parent.iterdir())) == 4
        assert same(load_rar(place, TINY))
        # A fetch that was interrupted goes on with what is missing.
        next(copy.parent.glob("*-00003-*")).unlink()
        copy.unlink()
        assert local_copy(place) == copy
        assert same(load_rar("memory://weights-elsewhere", TINY))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder, index: next(folder.glob("*-00002-*")).unlink(),
            r"there is no file model-00002-of-00003\.safetensors, which ",
        ),
        (lambda _, index: index.write_text("{"), "is not an index of shards with a weight_map"),
        (lambda _, index: index.write_text("[" * 100_000), "is not an index of shards with a weight_map"),
        (lambda _, index: index.write_text('{"weight_map": {}}'), "is not an index of shards with a weight_map"),
        (
            lambda _, index: index.write_text('{"weight_map": {"a": "../a.safetensors"}}'),
            "names '../a.safetensors' for tensor 'a'",
        ),
        (lambda _, index: index.write_text('{"weight_map": {"a": "/etc/passwd"}}'), "names '/etc/passwd' for tensor 'a'"),
        (lambda _, index: index.write_text('{"weight_map": {"a": 3}}'), r"is not an index .*\(weight_map.a: .*string"),
        (
            lambda _, index: index.write_text('{"weight_map": {"a": "model-00001-of-00003.safetensors"}}'),
            "expects a in model-00001-of-00003.safetensors, which does not have it",
        ),
    ],
)
def test_what_is_wrong_with_shards_is_named(tmp_path, spoil, message):
    index = write_sharded(tmp_path / "sharded")
    spoil(tmp_path / "sharded", index)
    with pytest.raises(WeightsError, match=message):
        load_rar(index, TINY)
