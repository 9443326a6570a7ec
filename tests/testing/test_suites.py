"""The suites pass on what rarkit ships, and fail on parts that are wrong."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from pydantic import Field

import rarkit.testing
from rarkit import AttentionBackend, ImageInfo, PermutationSchedule, ScanOrder, Tokenizer, TokenizerModel
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.digits import Digits
from rarkit.features.classifier import Classifier
from rarkit.testing import (
    AttentionBackendSuite,
    DatasetSuite,
    FeatureExtractorSuite,
    PermutationScheduleSuite,
    ScanOrderSuite,
    TokenizerSuite,
)
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel

GREY = ImageInfo(8, 8, 1, tuple("abc"))


class TestAttention(AttentionBackendSuite):
    parts = (Plain(), SDPA())


class TestDigits(DatasetSuite):
    parts = (Digits(), Digits(test_fraction=0.5))


class TestTokenizers(TokenizerSuite):
    parts = (PatchKMeans(codes=16), Pixel())

    def info(self):
        return GREY


class TestClassifier(FeatureExtractorSuite):
    parts = (Classifier(steps=3, width=4),)

    def info(self):
        return GREY


class Doubled(ScanOrder):
    """Visits the first cell twice."""

    name: Literal["doubled"] = "doubled"
    setting: int = Field(default=1)

    def order(self, height, width):
        self.check_grid(height, width)
        return np.maximum(np.arange(height * width) - 1, 0)


class TooMuch(PermutationSchedule):
    """More than always."""

    name: Literal["too_much"] = "too_much"

    def random_ratio(self, step, total):
        return 1.5


class Peeking(AttentionBackend):
    """Forgets the mask."""

    name: Literal["peeking"] = "peeking"

    def build(self):
        plain = Plain().build()
        return lambda q, k, v, *, causal, dropout=0.0: plain(q, k, v, causal=False)


class BatchMean(Tokenizer):
    """Codes that depend on the batch."""

    name: Literal["batch_mean"] = "batch_mean"

    def codebook_size(self):
        return 256

    def grid(self, info):
        return info.height, info.width

    def build(self, state, device):
        return BatchMeanModel()


class BatchMeanModel(TokenizerModel):
    def encode(self, images):
        return ((images.long() + images.long().sum()) % 256)[..., 0]

    def decode(self, codes):
        return codes.byte()[..., None]


def suite_of(base, part):
    made = type("Made", (base,), {"parts": (part,), "info": lambda self: GREY})
    return made()


@pytest.mark.parametrize(
    ("suite", "part", "test"),
    [
        (ScanOrderSuite, Doubled(), "test_it_visits_every_cell_once"),
        (ScanOrderSuite, Doubled(), "test_rank_is_the_inverse"),
        (ScanOrderSuite, Doubled(), "test_it_is_documented"),
        (PermutationScheduleSuite, TooMuch(), "test_the_ratio_is_a_probability_at_every_step"),
        (AttentionBackendSuite, Peeking(), "test_the_future_is_unseen"),
        (TokenizerSuite, BatchMean(), "test_an_image_does_not_depend_on_its_batch"),
    ],
)
def test_wrong_parts_fail(suite, part, test):
    with pytest.raises(AssertionError):
        getattr(suite_of(suite, part), test)()


def test_every_kind_has_a_suite():
    assert len([name for name in rarkit.testing.__all__ if name.endswith("Suite")]) == 6
