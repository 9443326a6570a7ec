"""Checkpoints that several ranks save together, and load under another sharding, on real processes with gloo."""

from __future__ import annotations

from tests.engine.saving import differing, failing, loaded, loaded_and_saved, saved, state, whole_tensors
from tests.processes import call, call_ranks


def done(ended):
    assert ended.returncode == 0, ended.stderr


def folder(tmp_path, name):
    """Where processes print."""
    (tmp_path / name).mkdir()
    return tmp_path / name


def assert_is_readable_without_rarkit(url):
    tensors = whole_tensors(f"{url}/train/cafe/files", 3)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {n: t.shape for n, t in state("none", 1).items()}
    assert not differing(tensors)


def test_saved_by_two_shards_loaded_by_one_process_and_by_four(tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    done(call_ranks(2, folder(tmp_path, "save"), saved, first, "fsdp", False))
    done(call(folder(tmp_path, "alone"), loaded, first, "none", 2))
    assert_is_readable_without_rarkit(first)
    done(call_ranks(4, folder(tmp_path, "four"), loaded_and_saved, first, second, 2))
    done(call_ranks(2, folder(tmp_path, "two"), loaded, second, "fsdp", 4))


def test_saved_by_one_process_loaded_by_shards(tmp_path):
    done(call(folder(tmp_path, "save"), saved, str(tmp_path / "store"), "none", False))
    done(call_ranks(2, folder(tmp_path, "load"), loaded, str(tmp_path / "store"), "fsdp", 1))


def test_saved_by_two_that_hold_all_of_it_each_writes_a_share(tmp_path):
    done(call_ranks(2, folder(tmp_path, "save"), saved, str(tmp_path / "store"), "ddp", True))
    done(call(folder(tmp_path, "load"), loaded, str(tmp_path / "store"), "none", 2))
    sizes = [path.stat().st_size for path in (tmp_path / "store/train/cafe/files").glob("*.safetensors")]
    assert len(sizes) == 2
    assert max(sizes) < 1.5 * min(sizes)


def test_what_one_rank_cannot_save_all_ranks_refuse(tmp_path):
    done(call_ranks(2, tmp_path, failing, str(tmp_path / "store")))
