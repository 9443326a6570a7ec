"""Tokenizers, attention backends, datasets and feature extractors that break one promise each, which ``fault`` names."""

from __future__ import annotations

import itertools
import math
from typing import ClassVar, Literal, final

import numpy as np

from rarkit import (
    AttentionBackend,
    Dataset,
    FeatureExtractor,
    FeatureModel,
    Features,
    ImageBlock,
    ImageInfo,
    ImageReader,
    Tokenizer,
    TokenizerModel,
)
from rarkit.errors import CapabilityError, DatasetError, GridError

COUNTER = itertools.count()
GREY = ImageInfo(8, 8, 1, tuple("abc"))


@final
class Levels(Tokenizer):
    """Each pixel is a token."""

    name: Literal["levels"] = "levels"
    fault: Literal["none", "range", "decode", "batch", "grid", "fit", "silent"] = "none"
    """What is wrong."""

    @property
    def learns(self):
        return self.fault == "fit"

    def fit(self, reader, seed):
        if self.fault == "fit":
            return {"drawn": np.array(next(COUNTER))}
        return {} if self.fault == "silent" else super().fit(reader, seed)

    def codebook_size(self):
        return 255 if self.fault == "range" else 256

    def grid(self, info):
        if info.channels != 1:
            raise GridError("levels takes grey images")
        return (info.height // 5 if self.fault == "grid" else info.height), info.width

    def build(self, state, device):
        return LevelsModel(self.fault)


@final
class LevelsModel(TokenizerModel):
    def __init__(self, fault):
        self.fault = fault

    def encode(self, images_BHWC):
        shift = images_BHWC.long().sum() if self.fault == "batch" else 0
        codes_BHW = (images_BHWC.long() + shift)[..., 0] % 256
        return codes_BHW.clamp(min=255) if self.fault == "range" else codes_BHW

    def decode(self, codes_BHW):
        # Only the last code of the book goes wrong.
        dtype = "float" if self.fault == "decode" and codes_BHW.max() == 255 else "byte"
        return getattr(codes_BHW, dtype)()[..., None]


@final
class Wrong(AttentionBackend):
    """Softmax attention with a fault."""

    name: Literal["wrong"] = "wrong"
    fault: Literal[
        "none", "scale", "detached", "peeking", "undropped", "unscaled", "refusing", "denying", "unseeded", "together", "layerless"
    ] = "none"
    """What is wrong."""

    has_seeded_dropout: ClassVar[bool] = True

    @property
    def has_dropout(self):
        return self.fault != "denying"

    def build(self):
        return self._attend

    def _attend(self, q, k, v, *, causal, dropout=None):
        import torch

        if dropout is not None and self.fault == "refusing":
            raise CapabilityError("wrong has no dropout")
        scores = q @ k.transpose(-1, -2) / (1.0 if self.fault == "scale" else math.sqrt(q.shape[-1]))
        if causal and self.fault != "peeking":
            scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
        weights = scores.softmax(-1)
        if dropout is not None and self.fault != "undropped":
            kept = self._kept(weights, dropout)
            weights = weights * kept / (1 if self.fault == "unscaled" else 1 - dropout.probability)
        return (weights.detach() if self.fault == "detached" else weights) @ v

    def _kept(self, weights, dropout):
        import torch

        if self.fault == "unseeded":
            return torch.rand_like(weights) >= dropout.probability
        layer = 0 if self.fault == "layerless" else dropout.layer
        shared = len(dropout.seeds_B) if self.fault == "together" else 0
        generators = [torch.Generator().manual_seed(7919 * layer + shared + seed) for seed in dropout.seeds_B.tolist()]
        drawn = [torch.rand(weights.shape[1:], generator=generator) for generator in generators]
        return torch.stack(drawn) >= dropout.probability


@final
class Noise(Dataset):
    """Noise."""

    name: Literal["noise"] = "noise"
    fault: Literal["none", "labels", "blocks", "order", "memory", "any_split", "count", "chosen"] = "none"
    """What is wrong."""

    def info(self):
        return GREY

    def splits(self):
        return ("train",)

    def count(self, split):
        return 19 if self.fault == "count" else 20

    def open(self, split):
        if split != "train" and self.fault != "any_split":
            raise DatasetError("noise has no test images")
        return NoiseReader(self.fault, next(COUNTER) if self.fault == "order" else 0)


@final
class NoiseReader(ImageReader):
    def __init__(self, fault, seed):
        self.fault = fault
        self.images_NHWC = np.random.default_rng(seed).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)

    def __len__(self):
        return 20

    def chosen(self, rows_N, rows):
        return super().chosen(np.arange(len(rows_N)) if self.fault == "chosen" else rows_N, rows)

    def blocks(self, start, stop, rows):
        rows = 4 if self.fault == "blocks" else rows
        shared_NHWC = np.empty((rows, 8, 8, 1), dtype=np.uint8)
        for first in range(start, stop, rows):
            images_NHWC = self.images_NHWC[first : min(first + rows, stop)]
            if self.fault == "memory":
                shared_NHWC[: len(images_NHWC)] = images_NHWC
                images_NHWC = shared_NHWC[: len(images_NHWC)]
            classes = 4 if self.fault == "labels" else 3
            yield ImageBlock(images_NHWC, np.arange(first, first + len(images_NHWC)) % classes)


@final
class Flat(FeatureExtractor):
    """The pixels themselves."""

    name: Literal["flat"] = "flat"
    fault: Literal["none", "refuses", "nan", "batch", "logits", "fid", "fit"] = "none"
    """What is wrong."""

    @property
    def learns(self):
        return self.fault == "fit"

    def distance_names(self):
        return super().distance_names() | ({"features": "fid"} if self.fault == "fid" else {})

    def check_images(self, info):
        if self.fault == "refuses":
            raise GridError("flat takes no images")

    def fit(self, reader, seed):
        return {"drawn": np.array(next(COUNTER))}

    def build(self, state, device):
        return FlatModel(self.fault)


@final
class FlatModel(FeatureModel):
    def __init__(self, fault):
        self.fault = fault

    def __call__(self, images_BHWC):
        features_BF = images_BHWC.flatten(1).float()
        logits_BC = features_BF[:, :3].clone()
        if self.fault == "nan":
            features_BF[0, 0] = math.nan
        if self.fault == "batch":
            features_BF -= features_BF.mean(0)
        if self.fault == "logits":
            logits_BC -= logits_BC.mean(0)
        return Features(features_BF, logits_BC)
