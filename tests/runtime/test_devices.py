import numpy as np
import pytest
import torch

from rarkit.errors import CapabilityError
from rarkit.runtime import devices
from rarkit.runtime.devices import in_float64, resolve_device


@pytest.mark.parametrize(
    ("cuda", "mps", "trains_on", "draws_on"),
    [(True, False, "cuda", "cuda"), (True, True, "cuda", "cuda"), (False, True, "cpu", "mps"), (False, False, "cpu", "cpu")],
)
def test_auto(monkeypatch, cuda, mps, trains_on, draws_on):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert (resolve_device("auto"), resolve_device("auto", draws=True)) == (trains_on, draws_on)


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(CapabilityError, match="device 'xpu:7' cannot be used here"):
        resolve_device("xpu:7")


@pytest.mark.parametrize(("cuda", "mps", "told"), [(False, False, "cpu"), (True, False, "cpu, cuda"), (False, True, "cpu, mps")])
def test_only_devices_that_are_here_are_proposed(monkeypatch, cuda, mps, told):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    with pytest.raises(CapabilityError, match=rf"\. Use {told} or auto\.$"):
        resolve_device("gpu")


def test_float64_is_on_the_device_where_it_has_it(monkeypatch):
    logits_BV = torch.linspace(-3, 3, 12).reshape(2, 6)
    assert in_float64(logits_BV).dtype == torch.float64
    assert in_float64(torch.empty(2, device="meta")).device.type == "meta"
    monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu"})
    np.testing.assert_array_equal(in_float64(logits_BV), logits_BV.numpy().astype(np.float64))
