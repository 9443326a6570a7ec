"""Weight files: what goes in comes out, and whatever is wrong with a file is said in one sentence."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys

import fsspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rarkit.errors import WeightsError
from rarkit.files.weights import PORTIONS, portions, read_tensors, write_tensors
from rarkit.models import PRESETS, RAR, checksum, load_rar, save_rar
from tests.models.rar.small import TINY, lively

ORDER = torch.randperm(TINY.seq_len, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _logits(model):
    generator = torch.Generator().manual_seed(1)
    tokens_BL = torch.randint(TINY.codebook_size, (3, TINY.seq_len), generator=generator)
    with torch.no_grad():
        return model(tokens_BL, torch.tensor([0, 1, 4]), ORDER)


def _same(model, other):
    first, second = model.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first)
    assert type(model) is type(other)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".safetensors"])
@pytest.mark.parametrize("merged", [False, True])
def test_round_trip(tmp_path, suffix, merged):
    model = lively().merge_positions(ORDER) if merged else lively()
    path = tmp_path / "folder" / f"model{suffix}"
    save_rar(model, path)
    read = load_rar(path, None if suffix == ".safetensors" else TINY)
    _same(read, model)
    assert read.config == model.config
    assert not read.training
    assert all(weight.requires_grad for weight in read.parameters())
    assert torch.equal(_logits(read), _logits(model))
    save_rar(read, tmp_path / f"again{suffix}")
    assert (tmp_path / f"again{suffix}").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(path.parent)) == [f"model{suffix}"]


def test_bin_is_a_plain_dict_of_tensors(tmp_path):
    save_rar(lively(), tmp_path / "model.bin")
    content = torch.load(tmp_path / "model.bin", weights_only=True)
    assert type(content) is dict
    assert list(content) == list(RAR(TINY).state_dict())
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in content.values())


def test_bin_written_by_torch_under_any_name_and_of_old(tmp_path):
    model = lively()
    torch.save(model.state_dict(), tmp_path / "rar_t.bin")
    torch.save(model.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("rar_t.bin", "old.bin"):
        _same(load_rar(tmp_path / name, TINY), model)


def test_dtype_of_weights_alone_is_changed(tmp_path):
    save_rar(lively().merge_positions(ORDER), tmp_path / "model.safetensors")
    model = load_rar(tmp_path / "model.safetensors", dtype=torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in model.state_dict().items() if tensor.dtype != torch.bfloat16} == {
        "scan_order": torch.int64
    }
    save_rar(model, tmp_path / "half.safetensors")
    _same(load_rar(tmp_path / "half.safetensors"), model)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_training_a_loaded_model_leaves_the_file_alone(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    save_rar(lively(), path)
    before = path.read_bytes()
    model = load_rar(path, TINY)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    assert path.read_bytes() == before
    save_rar(model, path)
    assert path.read_bytes() != before
    _same(load_rar(path, TINY), model)


def test_checksum_is_sha256(tmp_path):
    (tmp_path / "any.bin").write_bytes(b"weights")
    assert checksum(tmp_path / "any.bin") == hashlib.sha256(b"weights").hexdigest()


def test_a_folder_stands_for_its_model(tmp_path):
    save_rar(lively(), tmp_path / "run" / "model.safetensors")
    _same(load_rar(tmp_path / "run"), lively())


def test_remote_files_are_fetched_once_for_each_version(cache_folder, monkeypatch):
    model, other = lively(), lively(seed=1)
    save_rar(model, "memory://weights/model.safetensors")
    _same(load_rar("memory://weights/model.safetensors"), model)
    fetched = list(cache_folder.rglob("*.safetensors"))
    assert len(fetched) == 1
    memory = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", lambda *_, **__: pytest.fail("fetched again"))
        _same(load_rar("memory://weights/model.safetensors"), model)
    assert checksum("memory://weights/model.safetensors") == hashlib.sha256(fetched[0].read_bytes()).hexdigest()
    save_rar(other, "memory://weights/model.safetensors")
    _same(load_rar("memory://weights/model.safetensors"), other)


def test_a_fetch_that_breaks_off_leaves_nothing(cache_folder, monkeypatch):
    save_rar(lively(), "memory://weights/model.bin")
    memory = fsspec.filesystem("memory")

    def half(self, source, target, **_):
        with open(target, "wb") as file:
            file.write(self.cat_file(source)[:1000])

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "get_file", half)
        with pytest.raises(WeightsError, match=r"memory://weights/model\.bin cannot be reached .*1,000 of [\d,]+ bytes"):
            load_rar("memory://weights/model.bin", TINY)
    assert [path for path in cache_folder.rglob("*") if path.is_file()] == []
    _same(load_rar("memory://weights/model.bin", TINY), lively())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("nowhere/model.bin", r"there is no file nowhere/model\.bin\. Check the place"),
        ("memory://nowhere.bin", r"there is no memory://nowhere\.bin\. Check the place"),
        ("zzz://model.bin", "zzz://model.bin names a file system that nothing here knows"),
    ],
)
def test_what_is_not_there(location, message):
    for read in (checksum, lambda place: load_rar(place, TINY)):
        with pytest.raises(WeightsError, match=message):
            read(location)


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install huggingface_hub to access HfFileSystem")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(WeightsError, match=r'hf://yucornetto/RAR/rar_b\.bin needs .*pip install "rarkit\[hub\]"'):
        load_rar("hf://yucornetto/RAR/rar_b.bin", "rar_b")
    with pytest.raises(WeightsError, match=r"Install huggingface_hub"):
        load_rar("gs://rar_b.bin", "rar_b")


def test_planning_takes_checksums_without_torch(tmp_path):
    (tmp_path / "any.bin").write_bytes(b"weights")
    code = "import sys; from rarkit.models import checksum; checksum(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, tmp_path / "any.bin"], check=True)


class _SystemCall:
    def __reduce__(self):
        return os.system, ("exit 7",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch, zipped):
    torch.save({"cls_token": _SystemCall()}, tmp_path / "evil.bin", _use_new_zipfile_serialization=zipped)
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    with pytest.raises(WeightsError, match=r"evil\.bin wants to run \S*system when it is read.*refused"):
        load_rar(tmp_path / "evil.bin", TINY)
    assert ran == []


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
@pytest.mark.parametrize("keep", [3, 100, 0.5, 0.999])
def test_a_truncated_file_is_damaged(tmp_path, suffix, keep):
    path = tmp_path / f"model{suffix}"
    save_rar(lively(), path)
    content = path.read_bytes()
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(WeightsError, match=r"is damaged or not a .* file: .*Fetch it again"):
        load_rar(path, TINY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list, not tensors by name"),
        ({"cls_token": torch.zeros(1), "epoch": 3}, "its entry 'epoch' is a int, not a tensor"),
        ({"encoder": {"a": torch.zeros(1)}, "decoder": {"a": torch.zeros(1)}}, "its entry 'encoder' is a dict, not a tensor"),
        ({}, "holds no tensors"),
        ({3: torch.zeros(1)}, "its entry 3 is a Tensor"),
    ],
)
def test_other_content_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.bin")
    with pytest.raises(WeightsError, match=message):
        load_rar(tmp_path / "odd.bin", TINY)


def _changed(change):
    state = lively().state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("cls_token"), r"does not fit the model: missing: cls_token\.$"),
        (lambda state: state.update(ema=torch.zeros(2)), r"unexpected: ema\.$"),
        (lambda state: state.update(cls_token=torch.zeros(2, 3)), r"wrong shape: cls_token is 2×3 instead of 1×1×32\.$"),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 32).long()), r"wrong dtype: cls_token is torch.int64\.$"),
        (lambda state: [state.pop(name) for name in list(state)[:5]], r"missing: cls_token, pos_embed, \S+ and 2 more\.$"),
    ],
)
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_tensors_that_do_not_fit(tmp_path, change, message, suffix):
    path = tmp_path / f"model{suffix}"
    state = _changed(change)
    torch.save(state, path) if suffix == ".bin" else save_file(state, path)
    with pytest.raises(WeightsError, match=message):
        load_rar(path, TINY)


def test_wrong_presets_name_the_one_that_fits(tmp_path):
    with torch.device("meta"):
        shapes = RAR(PRESETS["rar_b"]).state_dict()
    # Expanded scalars: a file of the right shapes that takes no room.
    torch.save({name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "rar.bin")
    with pytest.raises(WeightsError, match=r"it has 768 channels .* instead of 1,024.*\. It fits preset 'rar_b'\.$"):
        load_rar(tmp_path / "rar.bin", "rar_l")
    few = PRESETS["rar_l"].model_copy(update={"num_classes": 10, "codebook_size": 512, "seq_len": 64})
    sizes = "1,000 classes instead of 10, 1,024 codes instead of 512, 256 tokens per image instead of 64, 768 channels"
    with pytest.raises(WeightsError, match=rf"{sizes}.*classes that it was trained on\. Use the tokenizer"):
        load_rar(tmp_path / "rar.bin", few)
    with pytest.raises(WeightsError, match=r"does not contain the model's configuration.*It fits preset 'rar_b'\."):
        load_rar(tmp_path / "rar.bin")
    with pytest.raises(WeightsError, match=r"no preset 'rar_bb'; did you mean 'rar_b'\? Presets are rar_b, rar_l"):
        load_rar(tmp_path / "rar.bin", "rar_bb")
    assert load_rar(tmp_path / "rar.bin", "rar_b").config == PRESETS["rar_b"]


SIZES = {
    "num_classes": (7, "it has 5 classes instead of 7. Use a dataset with the classes"),
    "codebook_size": (21, "it has 20 codes instead of 21. Use the tokenizer"),
    "seq_len": (16, "it has 12 tokens per image instead of 16. Use the tokenizer"),
    "hidden_size": (64, "it has 32 channels (hidden_size) instead of 64"),
    "depth": (3, "it has 2 blocks (depth) instead of 3"),
    "num_heads": (4, "it has 2 heads (num_heads) instead of 4"),
    "mlp_hidden_size": (64, "it has 48 MLP channels (mlp_hidden_size) instead of 64"),
}


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_other_sizes_is_told_in_words(tmp_path, size, merged):
    save_rar(lively().merge_positions(ORDER) if merged else lively(), tmp_path / "model.safetensors")
    other, words = SIZES[size]
    with pytest.raises(WeightsError, match=re.escape(words)) as caught:
        load_rar(tmp_path / "model.safetensors", TINY.model_copy(update={size: other}))
    assert not re.search("wrong shape|missing|unexpected", str(caught.value))


def test_other_classes_do_not_hide_the_preset(tmp_path):
    with torch.device("meta"):
        shapes = RAR(PRESETS["rar_b"].model_copy(update={"num_classes": 10})).state_dict()
    torch.save({name: torch.zeros(()).expand(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "rar.bin")
    words = r"it has 10 classes instead of 1,000\. Its own sizes are those of preset 'rar_b'\. Use a dataset with the classes"
    with pytest.raises(WeightsError, match=words):
        load_rar(tmp_path / "rar.bin", "rar_b")


def test_sizes_in_a_file_that_make_no_sense(tmp_path):
    save_file({"cls_token": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"config": '{"hidden_size": 0}'})
    with pytest.raises(WeightsError, match=r"the configuration in .* is not that of a RAR"):
        load_rar(tmp_path / "model.safetensors")


def test_other_suffixes_are_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"weights are written to \.bin, \.pt, \.pth, \.ckpt, \.safetensors files"):
        save_rar(lively(), tmp_path / "new.gguf")
    with pytest.raises(WeightsError, match=r"weights are read from .* files, not \.gguf"):
        load_rar(tmp_path / "model.gguf", TINY)
    assert os.listdir(tmp_path) == ["model.gguf"]


def test_files_of_old_are_converted_too(tmp_path):
    """They cannot be mapped, and so come in one portion."""
    model = lively()
    torch.save(model.state_dict(), tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    _same(load_rar(tmp_path / "old.bin", TINY, dtype=torch.bfloat16), lively().bfloat16())


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 300), min_size=1, max_size=20), suffix=st.sampled_from([".bin", ".safetensors"]))
def test_portions_are_the_file(tmp_path_factory, sizes, suffix):
    tensors = {f"tensor {number}": torch.arange(size) + number for number, size in enumerate(sizes)}
    path = tmp_path_factory.mktemp("portions") / f"any{suffix}"
    write_tensors(tensors, path, {})
    read = list(portions(path))
    assert [name for portion in read for name in portion] == list(read_tensors(path)[0])
    assert {name for portion in read for name in portion} == set(tensors)
    most = sum(tensor.nbytes for tensor in tensors.values()) // PORTIONS
    for portion in read:
        assert len(portion) == 1 or sum(tensor.nbytes for tensor in portion.values()) <= most
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in portion.items())


def test_a_release_comes_back_byte_by_byte(tmp_path):
    """RAR-B in width, of fewer blocks: as released (whole state dict, any file name) → load → save → bytes of every tensor."""
    config = PRESETS["rar_b"].model_copy(update={"depth": 2})
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in RAR(config).state_dict().items()}
    # Any bits at all: numbers that are none, too, must come back as they were.
    bits = {name: torch.randint(-(2**31), 2**31, shape, dtype=torch.int32, generator=generator) for name, shape in shapes.items()}
    torch.save({name: value.view(torch.float32) for name, value in bits.items()}, tmp_path / "rar_b.bin")
    for suffix in (".bin", ".safetensors"):
        save_rar(load_rar(tmp_path / "rar_b.bin", config), tmp_path / f"again{suffix}")
        again, _ = read_tensors(tmp_path / f"again{suffix}")
        assert again.keys() == bits.keys()
        assert all(torch.equal(again[name].view(torch.int32), value) for name, value in bits.items())
