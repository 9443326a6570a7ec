"""Images to learn from, and small tokenizers of each kind."""

from __future__ import annotations

import numpy as np

from rarkit import ImageInfo
from rarkit.testing import ArrayReader
from rarkit_vq import FSQ, LFQ, VQ, SimVQ, VQTokenizer

INFO = ImageInfo(16, 16, 3, ("a", "b", "c"))
QUANTIZERS = {
    "vq": VQ(codes=16, dimensions=4),
    "cosine": VQ(codes=16, dimensions=4, cosine=True),
    "fsq": FSQ(levels=(5, 3)),
    "tanh": FSQ(levels=(5, 3), even=False),
    "simvq": SimVQ(codes=16, dimensions=4),
    "lfq": LFQ(bits=4),
}


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
