"""What the tokenizer learns: it begins as patch_kmeans, is no worse at any time, and is soon better."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from vq_trainings import blobs, few_steps, random_start, small

import rarkit
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.testing import ArrayReader
from rarkit.training import Learning
from rarkit_vq import VQ, SimVQ, VQTokenizer
from rarkit_vq.images import Chosen, Pictures, divided

SEED = 3


def psnr(model, reader):
    images = torch.from_numpy(reader.read().images_NHWC)
    error = (model.decode(model.encode(images)).double() - images.double()).square().mean((1, 2, 3))
    return (10 * torch.log10(255**2 / error)).mean().item()


@pytest.mark.parametrize("channels", [1, 3])
def test_it_begins_as_patch_kmeans(channels):
    reader = blobs(60, channels)
    part = small(steps=1, learning_rate=1e-30)
    model = part.build(part.fit(reader, SEED), "cpu")
    kmeans = rarkit.parts().tokenizers["patch_kmeans"](patch=4, codes=16)
    plain = kmeans.build(kmeans.fit(divided(reader, SEED)[0], SEED), "cpu")
    for images in (
        blobs(40, channels, seed=1).read().images_NHWC,
        np.random.default_rng(0).integers(0, 256, (40, 16, 16, channels)),
    ):
        images_NHWC = torch.from_numpy(images.astype(np.uint8))
        codes = model.encode(images_NHWC)
        assert torch.equal(codes, plain.encode(images_NHWC))
        assert torch.equal(model.decode(codes), plain.decode(codes))


def test_it_is_soon_better_than_patch_kmeans():
    reader, others = blobs(400), blobs(100, seed=1)
    part = small(steps=150, batch_size=32, learning_rate=4e-3, measure_every=50)
    kmeans = rarkit.parts().tokenizers["patch_kmeans"](patch=4, codes=16)
    plain = psnr(kmeans.build(kmeans.fit(reader, SEED), "cpu"), others)
    assert psnr(part.build(part.fit(reader, SEED), "cpu"), others) > plain + 1


def test_it_is_never_worse_than_it_began():
    reader = blobs(60)
    begun, ruined = (small(steps=8, learning_rate=rate) for rate in (1e-30, 1.0))
    states = [part.fit(reader, SEED) for part in (begun, ruined)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_held_back_images_are_some_of_the_training_images_and_not_trained_on():
    reader = blobs(60)
    trained_on, held_back = divided(reader, SEED)
    assert (len(trained_on), len(held_back)) == (54, 6)
    images = np.concatenate([trained_on.read().images_NHWC, held_back.read().images_NHWC])
    assert {image.tobytes() for image in images} == {image.tobytes() for image in reader.read().images_NHWC}
    assert not np.array_equal(divided(reader, SEED + 1)[1].read().images_NHWC, held_back.read().images_NHWC)


def test_no_view_of_a_held_back_image_is_trained_on():
    views, reader = 3, blobs(60)
    numbered_NHWC = np.zeros_like(reader.read().images_NHWC)
    numbered_NHWC[:, 0, 0, 0], numbered_NHWC[:, 0, 1, 0] = np.arange(60) // views, np.arange(60) % views
    reader = ArrayReader(numbered_NHWC, np.zeros(60, np.int64))
    reader.views = views
    trained_on, held_back = divided(reader, SEED)
    numbers, which = ([part.read().images_NHWC[:, 0, at, 0].tolist() for part in (trained_on, held_back)] for at in (0, 1))
    assert (len(numbers[0]), len(numbers[1])) == (18 * views, 2)
    assert set(numbers[0]) | set(numbers[1]) == set(range(20))
    assert not set(numbers[0]) & set(numbers[1])
    assert numbers[0] == sorted(numbers[0])
    assert (which[0], which[1]) == (list(range(views)) * 18, [0, 0])
    assert (trained_on.views, held_back.views) == (views, 1)
    reader.views = 60
    with pytest.raises(DatasetError, match="two training images or more"):
        divided(reader, SEED)


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (400, 40), (50_000, 1000)])
def test_short_trainings_have_checkpoints_too(steps, expected):
    settings = VQTokenizer(steps=steps).train_settings()
    assert (settings.checkpoint_every, settings.checkpoint_minutes) == (expected, 1.0)
    assert VQTokenizer(steps=steps, checkpoint_every=7, checkpoint_minutes=2).train_settings().checkpoint_every == 7
    assert VQTokenizer(steps=steps, checkpoint_every=7, checkpoint_minutes=2).identity() == VQTokenizer(steps=steps).identity()


def test_chosen_rows_are_those_of_the_reader():
    reader, rows = blobs(20), np.array([1, 4, 5, 11, 19])
    chosen = Chosen(reader, rows)
    assert np.array_equal(chosen.read().images_NHWC, reader.read().images_NHWC[rows])
    assert np.array_equal(next(chosen.chosen(np.array([0, 3]), 2)).images_NHWC, reader.read().images_NHWC[rows[[0, 3]]])
    assert np.array_equal(chosen[2][0], reader[5][0])


def test_one_image_is_not_enough():
    with pytest.raises(DatasetError, match="two training images or more"):
        small().fit(blobs(1), SEED)


def test_more_codes_than_patches_are_refused_with_the_cure():
    with pytest.raises(DatasetError, match=r'Lower quantizer\.codes, or set start = "random"'):
        small(downsample=16, quantizer=VQ(codes=64)).fit(blobs(60), SEED)


@few_steps
def test_images_that_do_not_fit_into_memory_are_read_in_each_step(monkeypatch):
    part = random_start("fsq")
    kept = part.fit(blobs(30), SEED)
    monkeypatch.setattr("rarkit_vq.images.BYTES_IN_MEMORY", 0)
    read = part.fit(blobs(30), SEED)
    passes = small(start="random", quantizer=part.quantizer, micro_batch_size=2).fit(blobs(30), SEED)
    assert all(np.allclose(kept[name], passes[name], rtol=1e-3, atol=1e-5) for name in kept)
    assert all(np.array_equal(kept[name], read[name]) for name in kept)


def test_images_are_read_once_a_step_whatever_asks_for_them_again(monkeypatch):
    monkeypatch.setattr("rarkit_vq.images.BYTES_IN_MEMORY", 0)
    reader, read = blobs(12), []
    images_NHWC, pictures = reader.read().images_NHWC, Pictures(reader)
    plain = pictures._read
    monkeypatch.setattr(pictures, "_read", lambda rows_B: read.append(rows_B.tolist()) or plain(rows_B))
    passes = np.arange(12).reshape(3, 2, 2)
    for step, following in pairwise(passes):
        for _ in ("tokenizer", "discriminator"):
            for rows_B, next_B in zip(step, following, strict=True):
                assert np.array_equal(pictures.rows(rows_B, next_B), images_NHWC[rows_B])
    # What is read ahead for the step after may still be under way.
    pictures._thread.shutdown()
    assert sorted(read) == passes.reshape(6, 2).tolist()


def test_a_codebook_that_collapses_is_warned_of():
    reader = blobs(60)
    reader._images_NHWC = np.broadcast_to(reader._images_NHWC[:1, :1, :1], reader._images_NHWC.shape)
    said = r"of its 256 codes: the codebook has collapsed.* Lower quantizer\.codes, or set quantizer\.name"
    with pytest.warns(RarkitWarning, match=said):
        small(start="random", quantizer=SimVQ(codes=256)).fit(reader, SEED)


@pytest.mark.parametrize("quantizer", ["vq", "cosine", "simvq", "lfq"])
def test_the_log_has_the_terms_of_the_loss_and_the_codes_in_use(quantizer):
    records = []
    part = random_start(quantizer)
    part.learn(blobs(60), SEED, Learning(log=records.append))
    steps = [record for record in records if "loss" in record]
    assert len(steps) == part.steps
    for record in steps:
        assert record["loss"] == pytest.approx(record["reconstruction"] + record["quantizer"], rel=1e-5)
        assert 1 <= record["perplexity"] <= part.codebook_size()
        assert 1 <= record["used_codes"] <= part.codebook_size()


@few_steps
@pytest.mark.parametrize("part", [small(), random_start("fsq")], ids=["kmeans", "random"])
def test_it_notes_what_patch_kmeans_reaches_on_the_held_back_images(part):
    reader, learning = blobs(60), Learning()
    part.learn(reader, SEED, learning)
    trained_on, held_back = divided(reader, SEED)
    kmeans = rarkit.parts().tokenizers["patch_kmeans"](patch=4, codes=part.codebook_size())
    plain = psnr(kmeans.build(kmeans.fit(trained_on, SEED), "cpu"), held_back)
    note = next(note for note in learning.notes if note.name == "patch_kmeans")
    assert (note.name, note.beside) == ("patch_kmeans", "held_out_psnr")
    assert "reaches {value} dB on the held-back images." in note.sentence
    assert note.value == pytest.approx(plain, abs=1e-3 if part.start == "kmeans" else 1)
    assert "held_out_psnr" in learning.finished[0].measured


@few_steps
@pytest.mark.parametrize(("codes", "window"), [(16, 1), (256, 16)])
def test_it_notes_over_how_many_steps_codes_are_counted(codes, window):
    """By this the report of a run knows whether their number says anything: eight tokens for each code, 128 tokens a step."""
    learning = Learning()
    small(start="random", quantizer=SimVQ(codes=codes), steps=2).learn(blobs(60), SEED, learning)
    assert [note.value for note in learning.notes if note.name == "used_codes_window"] == [window]


def test_previews_show_held_back_images_and_their_reconstructions():
    shown = {}

    def show(step, every, images, captions):
        shown[step] = images, captions

    reader, part = blobs(60), small(preview_every=4)
    state = part.learn(reader, SEED, Learning(show=show))
    assert sorted(shown) == [0, 4, 6]
    images, captions = shown[0]
    assert captions == ("held-back images", "reconstructions")
    held_back = divided(reader, SEED)[1].read().images_NHWC
    assert np.array_equal(images[:6], held_back)
    plain = small(preview_every=5).learn(reader, SEED, Learning())
    assert all(np.array_equal(state[name], plain[name]) for name in plain)
