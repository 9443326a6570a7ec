"""Checkpoints as training scripts write them give the weights in them; that goes for models, tokenizers and Inception alike."""

from __future__ import annotations

import argparse
import re
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rarkit.errors import RarkitWarning, WeightsError
from rarkit.files.state_dicts import EMA, MODEL, plain_names, unwrapped
from rarkit.files.weights import read_tensors
from rarkit.models import load_rar
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from tests.models.rar.small import TINY, lively

STATE = lively().state_dict()
SHADOW = lively(seed=1).state_dict()
REST = {
    "optimizer": torch.optim.AdamW(lively().parameters()).state_dict(),
    "epoch": 3,
    "args": argparse.Namespace(lr=1e-4, name="rar"),
    "best": 1.5,
}


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


def per_block(state=STATE):
    """The names of a model whose blocks were compiled one by one."""
    return {re.sub(r"^(blocks\.\d\.)", r"\1_orig_mod.", name): tensor for name, tensor in state.items()}


def same(path, expected):
    loaded = load_rar(path, TINY).state_dict()
    return loaded.keys() == expected.keys() and all(torch.equal(loaded[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        prefixed("module."),
        prefixed("_orig_mod."),
        prefixed("module._orig_mod."),
        prefixed("_orig_mod.module."),
        prefixed("module.module."),
        prefixed("module.", per_block()),
        prefixed("_fsdp_wrapped_module._checkpoint_wrapped_module."),
        OrderedDict(STATE),
        *({name: STATE, **REST} for name in (*EMA, *MODEL)),
        {"state_dict": {"model": prefixed("module.")}, **REST},
        {"ema": {"decay": 0.999, "module": per_block()}, **REST},
        {"weights of the generator": STATE, **REST},
        {"model": STATE, "step": torch.tensor(5)},
    ],
    ids=lambda content: f"{next(iter(content))}",
)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_weights_are_those_of_the_model(tmp_path, content, dtype):
    torch.save(content, tmp_path / "checkpoint.pt")
    if dtype is None:
        assert same(tmp_path / "checkpoint.pt", STATE)
    else:
        # This is converted in portions, which are read one by one.
        loaded = load_rar(tmp_path / "checkpoint.pt", TINY, dtype=dtype).state_dict()
        assert all(torch.equal(loaded[name], STATE[name].to(dtype)) for name in STATE)


def test_prefixes_in_safetensors(tmp_path):
    save_file(prefixed("_orig_mod.module."), tmp_path / "model.safetensors")
    assert same(tmp_path / "model.safetensors", STATE)


def test_the_names_are_those_that_torchs_wrappers_write(tmp_path):
    model = lively()
    averaged = AveragedModel(model)
    for wrapped in (nn.DataParallel(model), torch.compile(model), averaged, AveragedModel(torch.compile(model))):
        torch.save({"model": wrapped.state_dict(), **REST}, tmp_path / "checkpoint.ckpt")
        assert same(tmp_path / "checkpoint.ckpt", STATE), type(wrapped)


@pytest.mark.parametrize("average", EMA)
def test_the_moving_average_is_chosen_and_said(tmp_path, average):
    torch.save({"model": STATE, average: SHADOW, **REST}, tmp_path / "both.pt")
    with pytest.warns(RarkitWarning, match=f"both.pt has '{average}' beside 'model': '{average}' is used. To use another") as told:
        assert same(tmp_path / "both.pt", SHADOW)
    assert len(told) == 1
    with pytest.warns(RarkitWarning) as told:
        load_rar(tmp_path / "both.pt", TINY, dtype=torch.bfloat16)
    assert len(told) == 1


def test_a_moving_average_without_names_is_passed_over(tmp_path):
    torch.save({"model": STATE, "ema": {"decay": 0.9, "shadow_params": list(SHADOW.values())}}, tmp_path / "both.pt")
    assert same(tmp_path / "both.pt", STATE)


def test_tokenizers_read_the_same_files(tmp_path):
    sizes = {"hidden_channels": 32, "channel_mult": (1, 1), "num_res_blocks": 1, "z_channels": 8, "codes": 16}
    state = MaskGITVQGAN(weights=None, **sizes).network().state_dict()
    torch.save({"state_dict": prefixed("module.", state), **REST}, tmp_path / "vqgan.ckpt")
    read = MaskGITVQGAN(weights=str(tmp_path / "vqgan.ckpt"), **sizes).network().state_dict()
    assert all(torch.equal(read[name], state[name]) for name in state)


class _Options:
    pass


def test_objects_of_other_kinds_are_refused_with_both_cures(tmp_path):
    torch.save({"model": STATE, "args": _Options()}, tmp_path / "odd.pt")
    message = r"wants to run \S+_Options .*refused.*from their authors.*if the file is your own"
    with pytest.raises(WeightsError, match=message) as caught:
        read_tensors(tmp_path / "odd.pt")
    assert "weights_only" not in str(caught.value)


NAMES = st.lists(st.sampled_from(["a", "b", "module", "blocks", "0"]), min_size=1, max_size=4).map(".".join)


@given(st.sets(NAMES, min_size=1), st.lists(st.sampled_from(["module.", "_orig_mod.", "_fsdp_wrapped_module."]), max_size=3))
def test_prefixes_in_any_order_come_off(names, prefixes):
    state = {name: torch.zeros(1) for name in names}
    once = plain_names(state)
    assert list(plain_names(prefixed("".join(prefixes), state))) == list(once)
    if not all(name.startswith("module.") for name in names):
        assert list(once) == list(state)


def test_names_that_would_collide_are_kept():
    state = {"a": torch.zeros(1), "_orig_mod.a": torch.zeros(1)}
    assert list(plain_names(state)) == list(state)
    assert plain_names({}) == {}
    assert list(plain_names({"n_averaged": torch.zeros(1)})) == ["n_averaged"]


@pytest.mark.parametrize("content", [3, [torch.zeros(1)], {}, {"optimizer": {"a": torch.zeros(1)}}, {"x": STATE, "y": STATE}])
def test_what_holds_no_weights_or_leaves_the_choice_gives_none(content):
    assert unwrapped(content) is None


@pytest.mark.parametrize(
    ("state", "expected", "told"),
    [
        (prefixed("model."), STATE, None),
        (prefixed("net._orig_mod."), STATE, None),
        (prefixed("generator."), STATE, None),
        (STATE, STATE, None),
        ({**prefixed("model."), "criterion.weight": torch.ones(2)}, STATE, None),
        (
            {**prefixed("model."), **prefixed("ema_model.module.", SHADOW), "ema_model.n_averaged": torch.tensor(1)},
            SHADOW,
            "ema_model",
        ),
    ],
    ids=["model", "compiled net", "one attribute", "the module itself", "a loss beside it", "a moving average"],
)
def test_checkpoints_of_lightning(tmp_path, state, expected, told):
    rest = {
        "pytorch-lightning_version": "2.5.0",
        "callbacks": {"a": {"best": torch.tensor(1.0)}},
        "loops": {},
        "optimizer_states": [],
    }
    torch.save({"state_dict": state, "hyper_parameters": {"lr": 1e-4}, **rest}, tmp_path / "last.ckpt")
    if told is None:
        assert same(tmp_path / "last.ckpt", expected)
    else:
        with pytest.warns(RarkitWarning, match=f"has '{told}' beside 'model'"):
            assert same(tmp_path / "last.ckpt", expected)


def test_a_family_whose_names_begin_with_model_keeps_them(tmp_path):
    """Only a checkpoint of Lightning is known to have put ``model.`` in front."""
    torch.save(prefixed("model."), tmp_path / "own.pt")
    assert read_tensors(tmp_path / "own.pt")[0].keys() == prefixed("model.").keys()
