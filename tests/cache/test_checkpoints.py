"""Checkpoints: the latest that is whole and this training's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rarkit.cache.checkpoints import checkpoint_step, latest_checkpoint, write_checkpoint
from rarkit.cache.store import Store


def begun(tmp_path, fingerprint, step):
    """A training with a checkpoint, beside those that are there."""
    output = Store(str(tmp_path)).output("train", fingerprint)
    with output.writing({}):
        older = {path: path.read_bytes() for path in Path(output.path, "files").glob("*")}
        write_checkpoint(output, {"weights": torch.full((3,), float(step))}, step)
        for path, data in older.items():
            path.write_bytes(data)
    output.refresh()
    return output


def step_of(output):
    state = latest_checkpoint(output)
    return None if state is None else int(state["weights"][0])


def test_the_latest_that_is_whole_is_taken(tmp_path):
    begun(tmp_path, "cafe", 2)
    output = begun(tmp_path, "cafe", 10)
    assert (checkpoint_step(output), step_of(output)) == (10, 10)
    state = Path(output.path, "files/checkpoint-10.pt")
    whole = state.read_bytes()
    state.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert (checkpoint_step(output), step_of(output)) == (10, 2)
    state.write_bytes(whole[:-1])
    output.refresh()
    assert (checkpoint_step(output), step_of(output)) == (2, 2)


@pytest.mark.parametrize("seal", ["", "{", "[]", "3", '{"sha256": 3, "bytes": 1}', '{"sha256": "x"}', '{"bytes": 0}', "[" * 10**5])
def test_a_seal_that_is_none_seals_nothing(tmp_path, seal):
    begun(tmp_path, "cafe", 2)
    output = begun(tmp_path, "cafe", 10)
    Path(output.path, "files/checkpoint-10.json").write_text(seal)
    for name in ("checkpoint-.json", "checkpoint-x.json", "checkpoint-007.json", f"checkpoint-{'9' * 30}.json"):
        Path(output.path, "files", name).write_text("{}")
    output.refresh()
    assert (checkpoint_step(output), step_of(output)) == (2, 2)


def test_a_checkpoint_of_another_training_is_none(tmp_path):
    output, other = begun(tmp_path, "cafe", 2), begun(tmp_path, "f00d", 10)
    for path in Path(other.path, "files").glob("*"):
        shutil.copy(path, Path(output.path, "files"))
    output.refresh()
    assert (checkpoint_step(output), step_of(output)) == (2, 2)
    assert step_of(other) == 10
