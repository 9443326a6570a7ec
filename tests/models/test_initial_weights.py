"""New weights are drawn on the CPU, whatever torch's default device is."""

from __future__ import annotations

import pytest
import torch

from rarkit.models import RAR, LlamaAR
from tests.models.llama_ar.small import TINY as LLAMA
from tests.models.rar.small import TINY

MODELS = [(RAR, TINY), (LlamaAR, LLAMA)]


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_drawing_them_does_not_depend_on_the_default_device(model, config):
    expected, drawn = model(config, seed=1), model(config, seed=None)
    with torch.device("meta"):
        drawn.initialise(1)
    _same(drawn, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("model", "config"), MODELS)
def test_a_model_created_on_a_gpu_has_the_same(model, config):
    with torch.device("cuda"):
        created = model(config, seed=1)
    assert {weight.device.type for weight in created.parameters()} == {"cuda"}
    _same(created.cpu(), model(config, seed=1))


def _same(one, other):
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
