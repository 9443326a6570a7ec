"""Checkpoints of one process: what is loaded is what was saved, the latest that is whole, and this training's own."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from rarkit.cache.output import StageOutput
from rarkit.cache.store import Store
from rarkit.engine import checkpoint_storage
from rarkit.engine.checkpoint_seal import FORMAT, checkpoint_step
from rarkit.engine.checkpoints import Checkpoints
from rarkit.engine.tensor_files import DTYPES
from rarkit.errors import IncompleteError, StoreError
from rarkit.runtime.ranks import ALONE
from tests.processes import call

TENSORS = {"networks/model/weight": torch.arange(12.0).view(3, 4), "optimizer/model/weight/step": torch.tensor(3.0)}


@contextmanager
def training(url, fingerprint="cafe", **options):
    """The checkpoints of a training that has its output's lock."""
    output = Store(str(url)).output("train", fingerprint)
    with output.writing({}), Checkpoints(output, ALONE, **options) as checkpoints:
        yield checkpoints


def saved(url, *steps, fingerprint="cafe", **options):
    """An output with checkpoints; in each, the tensors are those of its step."""
    with training(url, fingerprint, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {name: tensor + step for name, tensor in TENSORS.items()}, {"step": step})
    return Store(str(url)).output("train", fingerprint)


def step_of(output):
    """The step whose tensors are loaded from the latest."""
    checkpoints, into = Checkpoints(output, ALONE), {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()}
    step = checkpoints.latest()
    if step is None:
        return None
    checkpoints.load(step, into)
    assert all(torch.equal(into[name], tensor + step) for name, tensor in TENSORS.items())
    assert checkpoints.facts(step) == {"step": step}
    return step


def files(output):
    return sorted(path.name for path in Path(output.path, "files").glob("*"))


# What is loaded is what was saved

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
NAMES = st.text(st.characters(exclude_characters="[]", exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=20)


@st.composite
def states(draw):
    """Tensors by name, of any type, shape and strides."""
    found = {}
    for name in draw(st.lists(NAMES, max_size=6, unique=True)):
        dtype, shape = draw(st.sampled_from(list(DTYPES.values()))), draw(SHAPES)
        data = torch.randint(0, 2 if dtype is torch.bool else 256, (*shape, dtype.itemsize), dtype=torch.uint8)
        tensor = data.view(dtype).view(shape)
        found[name] = draw(st.sampled_from([tensor, tensor.mT if tensor.ndim > 1 else tensor, tensor.expand(2, *shape)]))
    return found


def bits(tensor):
    return tuple(tensor.shape), tensor.dtype, tensor.contiguous().reshape(-1).view(torch.uint8).tolist() if tensor.numel() else []


@settings(max_examples=40)
@given(states(), st.booleans())
def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path_factory, state, asynchronous):
    with training(tmp_path_factory.mktemp("store"), asynchronous=asynchronous) as checkpoints:
        checkpoints.save(5, state, {"named": {"a": [1, None, "b"]}})
        checkpoints.wait()
        into = {name: torch.zeros_like(tensor, memory_format=torch.contiguous_format) for name, tensor in state.items()}
        checkpoints.load(5, into)
        assert {name: bits(tensor) for name, tensor in into.items()} == {name: bits(tensor) for name, tensor in state.items()}
        assert checkpoints.facts(5) == {"named": {"a": [1, None, "b"]}}
        for path in Path(checkpoints._output.path, "files").glob("*.safetensors"):
            alone = load_file(path)
            assert {name: bits(tensor) for name, tensor in alone.items()} == {name: bits(state[name]) for name in state}


def test_a_tensor_larger_than_a_portion_is_read_in_several(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_storage, "PORTION_BYTES", 40)
    state = {"rows": torch.randn(7, 3), "wide": torch.randn(2, 50), "long": torch.randn(101)}
    with training(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        checkpoints.load(1, into)
    assert all(torch.equal(into[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["", "a[0:1]", "a\nb", "a" * 501, "a]"])
def test_a_name_that_could_not_be_read_again_is_refused(tmp_path, name):
    with training(tmp_path) as checkpoints, pytest.raises(ValueError, match="is no name of a tensor in a checkpoint"):
        checkpoints.save(1, {name: torch.zeros(1)}, {})


@pytest.mark.parametrize("facts", [{"a": float("nan")}, {"a": "b" * 2**20}, {"a": object()}])
def test_facts_that_are_no_json_or_too_many_are_refused(tmp_path, facts):
    with training(tmp_path) as checkpoints, pytest.raises(ValueError, match=r"JSON|larger|valid"):
        checkpoints.save(1, {}, facts)
    assert not files(Store(str(tmp_path)).output("train", "cafe"))


OTHERS = {
    "is missing in it and float32": {**TENSORS, "more": torch.zeros(2)},
    "is float32 (3, 4) in it and missing in this one": {"optimizer/model/weight/step": torch.tensor(0.0)},
    "is float32 (3, 4) in it and float32 (4, 3) in this one": {**TENSORS, "networks/model/weight": torch.zeros(4, 3)},
    "is float32 (3, 4) in it and bfloat16 (3, 4) in this one": {
        **TENSORS,
        "networks/model/weight": TENSORS["networks/model/weight"].bfloat16(),
    },
    "(1 others differ too)": {"more": torch.zeros(2), "optimizer/model/weight/step": torch.tensor(0.0)},
}


@pytest.mark.parametrize("message", OTHERS)
def test_tensors_of_another_training_are_refused_and_not_touched(tmp_path, message):
    output, into = saved(tmp_path, 2), {name: torch.zeros_like(tensor) for name, tensor in OTHERS[message].items()}
    with pytest.raises(IncompleteError) as refused:
        Checkpoints(output, ALONE).load(2, into)
    assert message in str(refused.value)
    assert str(refused.value).endswith("Run its recipe again with --force train.")
    assert not any(tensor.any() for tensor in into.values())


# Which are there


@settings(max_examples=20)
@given(
    st.lists(st.integers(0, 10**17), min_size=1, max_size=6, unique=True).map(sorted),
    st.integers(1, 3),
    st.none() | st.integers(1, 4),
)
@example([1, 2, 3, 4, 5, 6], 1, 3)
def test_the_last_and_every_nth_are_kept(tmp_path_factory, steps, last, every):
    output = saved(tmp_path_factory.mktemp("store"), *steps, keep_last=last, keep_every=every)
    kept = [step for step in steps if step in steps[-last:] or (every is not None and step % every == 0)]
    assert Checkpoints(output, ALONE).steps() == kept
    assert len(files(output)) == 2 * len(kept)
    assert checkpoint_step(output) == step_of(output) == steps[-1]


def test_the_last_step_is_not_saved_twice(tmp_path):
    with training(tmp_path) as checkpoints:
        checkpoints.save(2, TENSORS, {"step": 2})
        before = {path: path.stat() for path in Path(checkpoints._output.path, "files").glob("*")}
        checkpoints.save(2, TENSORS, {"step": 2})
        assert {path: path.stat() for path in Path(checkpoints._output.path, "files").glob("*")} == before
    with training(tmp_path) as checkpoints:
        checkpoints.load(2, {name: torch.zeros_like(tensor) for name, tensor in TENSORS.items()})
        checkpoints.save(2, TENSORS, {"step": 2})
        assert {path: path.stat() for path in Path(checkpoints._output.path, "files").glob("*")} == before


DAMAGES = ("flip", "cut", "more", "delete", "swap")


@settings(max_examples=25)
@given(
    st.sampled_from(["rank-0.safetensors", "json"]), st.sampled_from(DAMAGES), st.floats(0, 1, exclude_max=True), st.integers(0, 7)
)
def test_of_a_damaged_one_the_one_before_is_taken(tmp_path_factory, file, damage, where, bit):
    output = saved(tmp_path_factory.mktemp("store"), 2, 10, keep_last=2)
    assert step_of(output) == 10
    separator = "." if file == "json" else "-"
    paths = [Path(output.path, "files", f"checkpoint-{step}{separator}{file}") for step in (2, 10)]
    whole = paths[1].read_bytes()
    place = int(where * len(whole))
    if damage == "delete":
        paths[1].unlink()
    else:
        changed = {
            "flip": whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :],
            "cut": whole[:place],
            "more": whole + b" x",
            "swap": paths[0].read_bytes(),
        }
        paths[1].write_bytes(changed[damage])
    output.refresh()
    assert step_of(output) == 2
    assert checkpoint_step(output) == (10 if file != "json" and damage in ("flip", "swap") else 2)
    with pytest.raises(IncompleteError, match="no whole checkpoint of step 10"):
        Checkpoints(output, ALONE).load(10, dict(TENSORS))
    # The training goes on from there, and comes to step 10 again.
    saved(output.path.removesuffix("/train/cafe"), 10)
    output.refresh()
    assert step_of(output) == 10
    assert files(output) == ["checkpoint-10-rank-0.safetensors", "checkpoint-10.json"]


def test_one_that_is_known_to_be_damaged_is_not_kept_in_place_of_a_whole_one(tmp_path):
    output = saved(tmp_path, 2, 10, keep_last=2)
    path = Path(output.path, "files/checkpoint-10-rank-0.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with training(tmp_path, keep_last=2) as checkpoints:
        assert checkpoints.latest() == 2
        checkpoints.save(12, TENSORS, {"step": 12})
        assert [name for name in files(output) if name.endswith(".json")] == ["checkpoint-12.json", "checkpoint-2.json"]
        # The same step again is another one.
        path = Path(output.path, "files/checkpoint-12-rank-0.safetensors")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with training(tmp_path, keep_last=2) as checkpoints:
        assert checkpoints.latest() == 2
        checkpoints.save(12, TENSORS, {"step": 12})
        checkpoints.save(14, TENSORS, {"step": 14})
        assert [name for name in files(output) if name.endswith(".json")] == ["checkpoint-12.json", "checkpoint-14.json"]


SEALS = ["", "{", "[]", "3", '{"format": 2}', '{"sha256": "x", "bytes": 1}', "[" * 10**5, '{"format": ' + "9" * 5000 + "}"]


@pytest.mark.parametrize("seal", SEALS)
def test_a_seal_that_is_none_seals_nothing(tmp_path, seal):
    output = saved(tmp_path, 2, 10, keep_last=2)
    Path(output.path, "files/checkpoint-10.json").write_text(seal)
    for name in ("checkpoint-.json", "checkpoint-x.json", "checkpoint-007.json", f"checkpoint-{'9' * 30}.json"):
        Path(output.path, "files", name).write_text("{}")
    output.refresh()
    assert (checkpoint_step(output), step_of(output)) == (2, 2)


def test_that_of_a_newer_rarkit_is_neither_read_nor_passed_over(tmp_path):
    output = saved(tmp_path, 2, 10, keep_last=2)
    seal = Path(output.path, "files/checkpoint-10.json")
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "format": FORMAT + 1}))
    output.refresh()
    for ask in (checkpoint_step, step_of):
        with pytest.raises(StoreError, match=rf"written by a newer rarkit \(format {FORMAT + 1}; .*Update rarkit"):
            ask(output)


def test_a_checkpoint_of_another_training_is_none(tmp_path):
    output, other = saved(tmp_path, 2), saved(tmp_path, 10, fingerprint="f00d")
    for path in Path(other.path, "files").glob("*"):
        shutil.copy(path, Path(output.path, "files"))
    output.refresh()
    assert (checkpoint_step(output), step_of(output)) == (2, 2)
    assert step_of(other) == 10


def test_what_was_not_sealed_is_none_and_is_removed_with_the_next(tmp_path, monkeypatch):
    output = saved(tmp_path, 2)
    with training(tmp_path) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_seal", lambda *_: (_ for _ in ()).throw(StoreError("the disk is full")))
        with pytest.raises(StoreError, match="the disk is full"):
            checkpoints.save(10, TENSORS, {})
    Path(output.path, "files/.rarkit-0123456789abcdef").write_bytes(b"half of a file")
    output.refresh()
    assert "checkpoint-10-rank-0.safetensors" in files(output)
    assert (checkpoint_step(output), step_of(output)) == (2, 2)
    saved(tmp_path, 12)
    assert files(output) == ["checkpoint-12-rank-0.safetensors", "checkpoint-12.json"]


def test_older_ones_stay_while_the_first_rank_does_not_see_what_others_wrote(tmp_path, monkeypatch):
    output, plain = saved(tmp_path, 2), StageOutput.writing_file

    def elsewhere(self, name):
        return plain(self, f"elsewhere/{name}")

    monkeypatch.setattr(StageOutput, "writing_file", elsewhere)
    with pytest.raises(StoreError, match="All ranks need the same store"):
        saved(tmp_path, 4)
    output.refresh()
    assert step_of(output) == 2


# Asynchronous


def test_a_step_does_not_wait_and_does_not_change_what_is_saved(tmp_path, monkeypatch):
    go_on, plain = threading.Event(), checkpoint_storage.content
    monkeypatch.setattr(checkpoint_storage, "content", lambda tensor: go_on.wait() and plain(tensor))
    with training(tmp_path, asynchronous=True) as checkpoints:
        state = {name: tensor + 4 for name, tensor in TENSORS.items()}
        checkpoints.save(4, state, {"step": 4})
        assert not checkpoints.failed
        for tensor in state.values():
            tensor.zero_()
        assert checkpoint_step(checkpoints._output) is None
        go_on.set()
        checkpoints.wait()
        assert step_of(checkpoints._output) == 4


@pytest.mark.parametrize("ask", ["wait", "save", "exit"])
def test_what_goes_wrong_meanwhile_is_raised(tmp_path, monkeypatch, ask):
    def full(tensor):
        raise StoreError("the disk is full")

    with pytest.raises(StoreError, match="the disk is full"), training(tmp_path, asynchronous=True) as checkpoints:  # noqa: PT012
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_storage, "content", full)
            checkpoints.save(4, TENSORS, {"step": 4})
            checkpoints._pending.exception()
        assert checkpoints.failed
        if ask == "save":
            checkpoints.save(4, TENSORS, {"step": 4})
        elif ask == "wait":
            checkpoints.wait()
    saved(tmp_path, 4)


def test_nothing_is_written_once_the_training_has_ended(tmp_path, monkeypatch):
    go_on, plain = threading.Event(), checkpoint_storage.content
    monkeypatch.setattr(checkpoint_storage, "content", lambda tensor: go_on.wait() and plain(tensor))
    monkeypatch.setattr(Checkpoints, "wait", lambda self: (_ for _ in ()).throw(StoreError("another rank failed")))
    with pytest.raises(KeyError) as stopped, training(tmp_path, asynchronous=True) as checkpoints:  # noqa: PT012
        monkeypatch.setattr(checkpoints, "_pending", None)
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "wait", lambda self: None)
            checkpoints.save(4, TENSORS, {"step": 4})
        pending = checkpoints._pending
        raise KeyError("the training failed")
    assert stopped.value.__notes__ == ["The last checkpoint was not saved: another rank failed"]
    go_on.set()
    assert "the training has ended" in str(pending.exception())
    assert not files(Store(str(tmp_path)).output("train", "cafe"))


# Elsewhere, and in how much memory


def test_on_s3_and_in_memory(s3_bucket, tmp_path):
    for url in (f"s3://{s3_bucket}/checkpoints", "memory://checkpoints"):
        output = saved(url, 2, 4, keep_last=2)
        assert step_of(output) == checkpoint_step(output) == 4
        output.filesystem.pipe_file(f"{output.path}/files/checkpoint-4-rank-0.safetensors", b"short")
        output.refresh()
        assert step_of(output) == checkpoint_step(output) == 2
        names = saved(url, 4).file_names()
        assert names == ["checkpoint-4-rank-0.safetensors", "checkpoint-4.json"]


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def saved_and_loaded(url):
    """Saves and loads 256 MB, and looks how much memory that took beside the tensors."""
    size = 2**22
    state = {f"networks/model/{number}": torch.full((16, size // 16), float(number)) for number in range(16)}
    into = {name: torch.full_like(tensor, -1.0) for name, tensor in state.items()}
    with training(url) as checkpoints:
        checkpoints.save(1, {"warm": torch.zeros(2**10)}, {})
        checkpoints.load(1, {"warm": torch.zeros(2**10)})
        before = peak()
        checkpoints.save(2, state, {})
        checkpoints.load(2, into)
        took = peak() - before
    assert all(torch.equal(into[name], tensor) for name, tensor in state.items())
    assert took < 64 * 2**20, took


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_saving_and_loading_hold_no_second_copy(tmp_path):
    ended = call(tmp_path, saved_and_loaded, str(tmp_path / "store"))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_a_save_goes_on_while_the_tensors_change(tmp_path, monkeypatch):
    go_on, plain = threading.Event(), checkpoint_storage.content
    monkeypatch.setattr(checkpoint_storage, "content", lambda tensor: go_on.wait() and plain(tensor))
    with training(tmp_path) as checkpoints:
        state = {"weight": torch.randn(2000, 1000, device="cuda"), "step": torch.tensor(3.0)}
        state["half"] = torch.ones(5, device="cuda").half()
        expected = {name: tensor.clone() for name, tensor in state.items()}
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        for step in (4, 5):
            go_on.clear()
            checkpoints.save(step, state, {})
            for tensor in state.values():
                tensor.zero_()
            go_on.set()
            checkpoints.wait()
            into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
            checkpoints.load(step, into)
            assert all(torch.equal(into[name], tensor) for name, tensor in expected.items())
            for name, tensor in state.items():
                tensor.copy_(expected[name])
        assert torch.cuda.max_memory_allocated() <= 2.1 * held
