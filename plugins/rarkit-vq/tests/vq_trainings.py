"""Images to learn from, small tokenizers of each kind, and trainings of them in processes."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace

import numpy as np
import pytest

import rarkit
from rarkit.testing import ArrayReader
from rarkit_vq import FSQ, LFQ, VQ, SimVQ, VQTokenizer, learning
from rarkit_vq.task import Reconstructing

QUANTIZERS = {
    "vq": VQ(codes=16, dimensions=4),
    "cosine": VQ(codes=16, dimensions=4, cosine=True),
    "fsq": FSQ(levels=(5, 3)),
    "even": FSQ(levels=(5, 3), even=True),
    "simvq": SimVQ(codes=16, dimensions=4),
    "lfq": LFQ(bits=4),
}

few_steps = pytest.mark.filterwarnings("ignore:tokenizer 'vq' uses")
"""For trainings too short for the codes to spread: other tests are of the warning."""


def small(**settings):
    """A tokenizer that learns in seconds."""
    defaults = {"downsample": 4, "width": 8, "steps": 6, "batch_size": 8, "measure_every": 3, "quantizer": VQ(codes=16)}
    return VQTokenizer(**{**defaults, **settings})


def random_start(quantizer, **settings):
    return small(start="random", quantizer=QUANTIZERS[quantizer], **settings)


def blobs(count, channels=3, seed=0):
    """A reader of smooth pictures of 16 × 16, each its own."""
    generator = np.random.default_rng(seed)
    down, across = np.meshgrid(*2 * [np.linspace(0, 1, 16)], indexing="ij")
    places, colours = generator.uniform(0, 1, (count, 3, 2)), generator.uniform(-0.5, 0.5, (count, 3, channels))
    images = np.full((count, 16, 16, channels), 0.5)
    for which in range(3):
        row, column = places[:, which, :, None, None].swapaxes(0, 1)
        blob = np.exp(-((down - row) ** 2 + (across - column) ** 2) / 0.05)
        images += blob[..., None] * colours[:, which, None, None]
    levels = (255 * images.clip(0, 1) + generator.normal(0, 3, images.shape)).round().clip(0, 255)
    return ArrayReader(levels.astype(np.uint8), np.arange(count) % 3)


def fitted(place, folder, settings, kill_at=None):
    """Runs the stage ``fit``, and leaves the weights and the log in ``place``; kills itself in a step. For ``tests.processes``."""
    learn = learning.learned

    def kept(part, reader, seed, engine):
        records = []
        state = learn(part, reader, seed, replace(engine, log=records.append))
        if engine.ranks.first:
            named = next(name for record in records for name in record if name in ("loss", "tokenizer_loss"))
            losses = [record[named] for record in records if named in record]
            np.savez(place, losses=losses, **state)
        return state

    def killed(self, step, total):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return stepped(self, step, total)

    stepped = Reconstructing.stepped
    learning.learned, Reconstructing.stepped = kept, killed
    recipe = rarkit.make_recipe(
        dataset={"name": "photographs", "size": 16, "train_images": 60, "test_images": 2},
        tokenizer=small(**settings).model_dump(),
        model={"hidden_size": 8, "depth": 1, "num_heads": 2},
        train={"steps": 1, "batch_size": 2},
    )
    warnings.simplefilter("ignore", rarkit.errors.RarkitWarning)
    rarkit.run(recipe, name="learned", store=f"{folder}/store", until="fit", device="cpu", runs=f"{folder}/runs")
