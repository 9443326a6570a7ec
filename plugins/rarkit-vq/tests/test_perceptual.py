"""The perceptual loss against the package that published it, and against plain functions."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from vq_trainings import blobs, few_steps, small

from rarkit.errors import GridError, WeightsError
from rarkit.training import Learning
from rarkit_vq.loss_settings import PerceptualSettings
from rarkit_vq.perceptual import MEAN, SCALE, STAGES, VGG16, Linear, Perceptual, load_perceptual

SMALL = ((4, 6), (5,), (8, 8))


def normal(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5
    return module


def images(count, channels, size, seed):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture(scope="module")
def little():
    vgg, linear = normal(VGG16(SMALL), 1), normal(Linear(stage[-1] for stage in SMALL), 2)
    for weight in linear.parameters():
        weight.data.abs_()
    return Perceptual(vgg, linear), vgg, linear


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Weights as they are published, drawn at random."""
    folder = tmp_path_factory.mktemp("weights")
    vgg = normal(VGG16(), 3).state_dict()
    vgg |= {f"classifier.{layer}.{what}": torch.zeros(2) for layer in (0, 3, 6) for what in ("weight", "bias")}
    linear = {name: values.abs() for name, values in normal(Linear(stage[-1] for stage in STAGES), 4).state_dict().items()}
    torch.save(vgg, folder / "vgg16-397923af.pth")
    torch.save(linear, folder / "vgg.pth")
    return str(folder / "vgg16-397923af.pth"), str(folder / "vgg.pth")


def test_it_is_that_of_the_package(files, monkeypatch):
    """The package gets its network from torchvision, in whose place stands the same network here."""
    pytest.importorskip("scipy", reason="lpips imports scipy")
    pytest.importorskip("tqdm", reason="lpips imports tqdm")
    layers, channels = [], 3
    for stage in STAGES:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    features = nn.Sequential(*layers)
    stored = torch.load(files[0], weights_only=True)
    features.load_state_dict(
        {name.removeprefix("features."): tensor for name, tensor in stored.items() if name.startswith("features.")}
    )
    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(vgg16=lambda pretrained: SimpleNamespace(features=features))
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    lpips = pytest.importorskip("lpips", reason="the package lpips is not installed")
    theirs = lpips.LPIPS(net="vgg", model_path=files[1], verbose=False)
    ours = load_perceptual(*files)
    for size in (16, 40):
        made, originals = images(3, 3, size, 5).requires_grad_(True), images(3, 3, size, 6)
        expected = theirs(made, originals)[:, 0, 0, 0]
        found = ours(made, originals)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        gradients = [torch.autograd.grad(distance.sum(), made)[0] for distance in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


@given(st.sampled_from([1, 3]), st.sampled_from([4, 7, 12]), st.integers(0, 100))
def test_it_is_that_of_plain_functions(little, channels, size, seed):
    perceptual, vgg, linear = little
    made, originals = images(2, channels, size, seed), images(2, channels, size, seed + 1)
    weights, layer, expected = vgg.state_dict(), 0, torch.zeros(2, dtype=torch.float64)
    both = torch.cat([made, originals]).expand(-1, 3, -1, -1).double()
    x = (both - torch.tensor(MEAN)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
    for number, stage in enumerate(SMALL):
        if number:
            x, layer = functional.max_pool2d(x, 2), layer + 1
        for _ in stage:
            x = functional.conv2d(
                x, *(weights[f"features.{layer}.{what}"].double() for what in ("weight", "bias")), padding=1
            ).relu()
            layer += 2
        unit = functional.normalize(x, dim=1)
        scale = linear.state_dict()[f"lin{number}.model.1.weight"].double()
        expected += ((unit[:2] - unit[2:]) ** 2 * scale).sum(1).mean((1, 2))
    torch.testing.assert_close(perceptual(made, originals).double(), expected, rtol=1e-4, atol=1e-6)


def test_of_the_original_it_is_0_and_its_gradient_a_number(little):
    """Also where all features are 0: the root of their squares has no gradient there."""
    perceptual, vgg, _ = little
    dead = VGG16(SMALL)
    dead.load_state_dict({name: torch.full_like(values, -1.0) for name, values in vgg.state_dict().items()})
    for distance in (perceptual, Perceptual(dead, normal(Linear(stage[-1] for stage in SMALL), 1))):
        made = images(2, 3, 12, 0).abs().requires_grad_(True)
        found = distance(made, made.detach())
        assert found.tolist() == [0.0, 0.0]
        (gradient,) = torch.autograd.grad(found.sum(), made)
        assert gradient.isfinite().all()


def test_autocast_around_it_changes_nothing(little):
    perceptual, _, _ = little
    made, originals = images(2, 3, 12, 0), images(2, 3, 12, 0) + 1e-3
    plain = perceptual(made, originals)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(perceptual(made.bfloat16().float(), originals), perceptual(made.bfloat16(), originals))
        assert torch.equal(perceptual(made, originals), plain)


@few_steps
def test_a_tokenizer_learns_with_it(files):
    """What is kept is chosen with it, and the files are in the fingerprint, by their content."""
    settings = PerceptualSettings(weight=0.5, vgg=files[0], lpips=files[1])
    part, records = small(perceptual=settings, steps=2, batch_size=2), []
    part.learn(blobs(30), 0, Learning(log=records.append))
    for record in records:
        if "loss" in record:
            terms = record["reconstruction"] + 0.5 * record["perceptual"] + record["quantizer"]
            assert record["loss"] == pytest.approx(terms, rel=1e-5)
        else:
            assert record["held_out_error"] > 0.5 * record["held_out_perceptual"] > 0
    assert part.identity()["content"].keys() == {"vgg", "lpips"}
    assert "vgg" not in part.identity()["perceptual"]
    other = small(perceptual=PerceptualSettings(vgg=files[1], lpips=files[0]))
    with pytest.raises(WeightsError, match=r"vgg16-397923af\.pth"):
        other.fit(blobs(30), 0)


def test_small_images_are_refused(files):
    reader = blobs(30)
    reader._images_NHWC = np.ascontiguousarray(reader._images_NHWC[:, :8, :8])
    part = small(perceptual=PerceptualSettings(vgg=files[0], lpips=files[1]))
    with pytest.raises(GridError, match="needs sides of 16 pixels or more; these are 8×8"):
        part.fit(reader, 0)
