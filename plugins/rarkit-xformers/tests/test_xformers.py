"""The backend says when it cannot run, and passes the right arguments to xFormers. Testing the kernel itself needs CUDA."""

from __future__ import annotations

import json
import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch

import rarkit
import rarkit_xformers
from rarkit.testing import AttentionBackendSuite
from rarkit_xformers import XFormers

ON_CUDA = torch.cuda.is_available() and XFormers().capability("cuda", "float32") is None


@pytest.mark.skipif(not ON_CUDA, reason="needs CUDA and xFormers")
class TestKernel(AttentionBackendSuite):
    parts = (XFormers(),)
    device = "cuda"
    tolerance = 1e-4


def stand_in(q, k, v, attn_bias=None, p=0.0):
    """xFormers' function as documented, with (B, S, N, K) tensors, computed by torch."""
    q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
    causal = attn_bias is not None
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, dropout_p=p).transpose(1, 2)


class TestArguments(AttentionBackendSuite):
    """The suite with torch in place of the kernel: transposition, mask and scale are right."""

    parts = (XFormers(),)

    @pytest.fixture(autouse=True)
    def _in_place_of_xformers(self, monkeypatch):
        ops = types.ModuleType("xformers.ops")
        ops.memory_efficient_attention, ops.LowerTriangularMask = stand_in, object
        package = types.ModuleType("xformers")
        package.__spec__ = ModuleSpec("xformers", None)
        monkeypatch.setitem(sys.modules, "xformers", package)
        monkeypatch.setitem(sys.modules, "xformers.ops", ops)


@pytest.mark.parametrize(
    ("built", "torch", "fits"),
    [
        (1208, "2.10.0+cu128", True),
        (1208, "2.11.0+cu130", False),
        (1300, "2.11.0+cu130", True),
        (None, "2.10.0+cu128", True),
        (1208, "2.10.0", True),
    ],
)
def test_kernels_of_another_cuda_are_told_before_they_fail(built, torch, fits, tmp_path, monkeypatch):
    (tmp_path / "cpp_lib.json").write_text(json.dumps({"version": {"cuda": built}}))
    monkeypatch.setattr(rarkit_xformers, "find_spec", lambda name: ModuleSpec(name, None, origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr(rarkit_xformers, "version", lambda name: torch)
    reason = XFormers().capability("cuda", "bfloat16")
    assert (reason is None) == fits
    assert fits or "built for CUDA 12, and torch 2.11.0+cu130 has CUDA 13" in reason


def test_the_installed_plugin_is_found():
    assert rarkit.parts(strict=True).attention_backends["xformers"] is XFormers


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "reason"),
    [
        (False, "cuda", "bfloat16", "not installed: pip install"),
        (True, "cpu", "float32", "no attention on cpu"),
        (True, "cuda", "float64", "not float64"),
        (True, "cuda:1", "bfloat16", None),
    ],
)
def test_it_says_why_it_cannot_run(monkeypatch, installed, device, dtype, reason):
    monkeypatch.setattr(rarkit_xformers, "find_spec", lambda name: ModuleSpec(name, None) if installed else None)
    refusal = XFormers().capability(device, dtype)
    assert refusal is None if reason is None else reason in refusal
