"""Optimizers, clipping and the average give one process's numbers where two ranks share the weights (FSDP2, gloo)."""

from __future__ import annotations

import pytest
import torch

from tests.engine.shared_weights import CLIPPED, MOST, STEPS, network, shared, steps
from tests.processes import call_ranks


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    done = call_ranks(2, folder, shared, folder)
    assert done.returncode == 0, done.stderr
    return lambda optimizer: torch.load(folder / f"{optimizer}.pt", weights_only=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_shared_weights_are_trained_like_those_of_one_process(optimizer, of_two_ranks):
    found, expected = of_two_ranks(optimizer), steps(network(), optimizer)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        # Muon rounds to bfloat16, so what differs in a last bit before may differ by 2⁻⁸ of an update of 0.06 after.
        tolerance = 2e-4 if optimizer == "muon" else 1e-6
        torch.testing.assert_close(found[name], values, rtol=tolerance, atol=tolerance * values.abs().max().item())


def test_the_norm_is_that_of_all_shards(of_two_ranks):
    """The norm that torch's own clip_grad_norm_ shows a rank is smaller, by about √2 here."""
    found = of_two_ranks("adamw")
    for step in range(STEPS):
        clipped = torch.cat([values.flatten() for name, values in found.items() if name.startswith(f"gradient {step} ")])
        norm = found[f"norm {step}"].item()
        assert (norm > MOST) == (step >= CLIPPED)
        assert clipped.norm().item() == pytest.approx(min(norm, MOST), rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_evaluating_the_average_leaves_shared_weights_as_they_were(optimizer, of_two_ranks):
    found = of_two_ranks(optimizer)
    names = [name.removeprefix("weight ") for name in found if name.startswith("weight ")]
    for name in names:
        assert torch.equal(found[f"evaluated {name}"], found[f"average/model/{name}"])
        assert torch.equal(found[f"again {name}"], found[f"weight {name}"])
        assert not torch.equal(found[f"evaluated {name}"], found[f"weight {name}"])
