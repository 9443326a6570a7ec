"""rarkit's contract of a tokenizer, for each quantizer and each start."""

from __future__ import annotations

import pytest
from vq_trainings import QUANTIZERS, random_start, small

import rarkit
from rarkit.testing import TokenizerSuite
from rarkit_vq import VQTokenizer


class TestKMeans(TokenizerSuite):
    parts = (small(), small(downsample=2))


@pytest.mark.filterwarnings("ignore:tokenizer 'vq' uses")
class TestRandom(TokenizerSuite):
    parts = tuple(random_start(quantizer) for quantizer in QUANTIZERS)
    reconstructs = False


def test_the_installed_plugin_is_found():
    assert rarkit.parts(strict=True).tokenizers["vq"] is VQTokenizer
