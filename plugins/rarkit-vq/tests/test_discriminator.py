"""The discriminator: gradients as autograd gives them, and a beginning that ruins nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn
from vq_trainings import blobs, few_steps, small

from rarkit.errors import GridError
from rarkit.training import Learning
from rarkit_vq.adversary import Adversary
from rarkit_vq.discriminator import Discriminator, as_loss, at_last_layer, followed, hinge, is_trained, judged, ramp
from rarkit_vq.loss_settings import DiscriminatorSettings

SETTINGS = DiscriminatorSettings(start_step=4, ahead_steps=2, ramp_steps=3, width=8, layers=1)
SEED = 3


@pytest.fixture
def discriminator():
    torch.manual_seed(0)
    return Discriminator(3, 8, 2)


def images(count=4, seed=0):
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_the_adversarial_loss_is_differentiated_at_the_images(discriminator):
    made = images().requires_grad_(True)
    expected = -discriminator(made).mean()
    (gradient,) = torch.autograd.grad(expected, made)
    found = judged(discriminator, made)
    torch.testing.assert_close(found.loss, expected.detach())
    torch.testing.assert_close(found.gradient_BCHW, gradient)
    again = as_loss(found.loss, found.gradient_BCHW, made)
    torch.testing.assert_close(again.detach(), expected.detach())
    torch.testing.assert_close(torch.autograd.grad(again, made)[0], gradient)
    assert all(weight.grad is None for weight in discriminator.parameters())


@given(st.integers(1, 4), st.integers(1, 3), st.integers(3, 7))
def test_gradients_at_the_last_layer_follow_from_those_at_the_images(channels, outputs, size):
    layer, inputs = nn.Conv2d(channels, outputs, 3, padding=1), torch.randn(2, channels, size, size)
    made = layer(inputs)
    loss = made.tanh().square().mean()
    gradient, expected = torch.autograd.grad(loss, [made, layer.weight])
    torch.testing.assert_close(at_last_layer(inputs, layer, gradient), expected, rtol=1e-4, atol=1e-6)


def test_scores_are_those_of_float32(discriminator):
    plain = discriminator(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(discriminator(images()), plain)


def test_hinge():
    real, fake = torch.tensor([[[2.0, 0.5]]]), torch.tensor([[[-3.0, 0.25]]])
    assert hinge(torch.cat([real, fake])).item() == pytest.approx(((0 + 0.5) / 2 + (0 + 1.25) / 2) / 2)


def test_the_adaptive_weight_makes_gradients_equally_large():
    reconstruction, adversarial = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 10.0])
    first = followed(torch.zeros(()), reconstruction, adversarial)
    assert (first * adversarial).norm().item() == pytest.approx(reconstruction.norm().item(), rel=1e-5)
    later = followed(first, 2 * reconstruction, adversarial)
    assert first < later < 2 * first
    assert followed(first, reconstruction, torch.zeros(2)).isfinite()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_it_is_trained_ahead_and_its_weight_rises(start, ahead, steps):
    settings = DiscriminatorSettings(start_step=start, ahead_steps=min(ahead, start), ramp_steps=steps)
    shares = [ramp(settings, step) for step in range(start + steps + 5)]
    assert shares == sorted(shares)
    assert max(shares[:start]) == 0 < shares[start]
    assert shares[start + steps - 1] == 1
    trained = [is_trained(settings, step) for step in range(len(shares))]
    assert trained == [step >= start - min(ahead, start) for step in range(len(shares))]


def test_the_whole_loss_has_the_gradient_of_its_terms():
    """At the weights of a decoder, as one backward pass through everything gives it."""
    torch.manual_seed(1)
    decoder = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 3, padding=1))
    adversary = Adversary(SETTINGS, 3, decoder[-1])
    adversary.network.balance.fill_(2.0)
    adversary.begin(5)
    originals, weight = images(seed=1), SETTINGS.weight * 2.0 * ramp(SETTINGS, 5)

    def error(made):
        return (made - originals).square().mean()

    made = decoder(images())
    loss, measures = adversary.loss(made, error)
    found = torch.autograd.grad(loss, list(decoder.parameters()))
    made = decoder(images())
    whole = error(made) - weight * adversary.network(made).mean()
    expected = torch.autograd.grad(whole, list(decoder.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert measures["adversarial_weight"].item() == pytest.approx(weight)


def records(**settings):
    """The log of each step."""
    part, found = small(steps=8, **settings), []
    part.learn(blobs(60), SEED, Learning(log=found.append))
    return [record for record in found if "held_out_error" not in record]


@pytest.fixture(scope="module")
def trained():
    return records(discriminator=SETTINGS)


def test_until_it_begins_the_tokenizer_learns_as_without_it(trained):
    without = records()
    for step in range(SETTINGS.start_step):
        for name in ("loss", "reconstruction", "gradient_norm"):
            assert trained[step][f"tokenizer_{name}"] == pytest.approx(without[step][name], rel=1e-4), (step, name)
    assert trained[-1]["tokenizer_loss"] != pytest.approx(without[-1]["loss"], rel=1e-4)


def test_it_is_trained_ahead(trained):
    begins = SETTINGS.start_step - SETTINGS.ahead_steps
    norms = [record["discriminator_gradient_norm"] for record in trained]
    assert norms[:begins] == [0.0] * begins
    assert min(norms[begins:]) > 0
    weights = [record["tokenizer_adversarial_weight"] for record in trained]
    assert weights[: SETTINGS.start_step] == [0.0] * SETTINGS.start_step
    assert min(weights[SETTINGS.start_step :]) > 0


def test_passes_decide_nothing(trained):
    for one, other in zip(trained, records(discriminator=SETTINGS, micro_batch_size=2), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert other[name] == pytest.approx(value, rel=2e-3, abs=1e-6), (one["step"], name)


@few_steps
def test_what_is_kept_was_trained_with_it():
    """Though its reconstructions are further from the pixels than those before the first step, when the last layers are zero."""
    engine = Learning()
    part = small(steps=8, discriminator=SETTINGS.model_copy(update={"weight": 1e3}), learning_rate=0.05)
    ruined = part.learn(blobs(60), SEED, engine)
    [trained] = engine.finished
    assert trained.measured["step"][trained.measured["held_out_error"].argmin()] < SETTINGS.start_step <= trained.best_step
    assert all(ruined[name].any() for name in ("encoder.out.weight", "decoder.out.weight"))
    assert ruined.keys() == small(steps=8).fit(blobs(60), SEED).keys()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValidationError, match="ahead_steps 3 is more than start_step 2: lower it, or raise start_step"):
        DiscriminatorSettings(start_step=2, ahead_steps=3)
    with pytest.raises(ValidationError, match="start_step 4 and ramp_steps 3 are more than steps 6: lower one of them"):
        small(steps=6, discriminator=SETTINGS)
    with pytest.raises(GridError, match=r"needs sides of 32 pixels or more; these are 16×16\. Lower discriminator.layers"):
        small(steps=8, discriminator=SETTINGS.model_copy(update={"layers": 5})).fit(blobs(60), SEED)
