"""How codes in use are counted."""

from __future__ import annotations

import math

import pytest
import torch

from rarkit_vq.usage import EACH, PERPLEXITY, USED, Usage

CODES, TOKENS = 10, 20
STEPS = EACH * CODES // TOKENS
"""Of the window."""


def test_codes_are_used_while_they_were_seen_in_the_last_steps():
    usage, counted = Usage(CODES), []
    for step in range(2 * STEPS):
        # Two codes in every step, and all others in the first alone.
        codes = torch.arange(TOKENS) % (CODES if step == 0 else 2)
        counted.append(int(usage.count(step, codes.reshape(4, 5))[USED]))
    assert counted == [CODES] * STEPS + [2] * STEPS


def test_perplexity_is_that_of_the_mean_distribution():
    usage = Usage(CODES)
    assert usage.count(0, torch.zeros(4, 5, dtype=torch.int64))[PERPLEXITY] == pytest.approx(1)
    # Half of the tokens have one code and half another by now.
    assert usage.count(1, torch.ones(4, 5, dtype=torch.int64))[PERPLEXITY] == pytest.approx(2)
    for step in range(2, 50 * STEPS):
        even = usage.count(step, torch.arange(TOKENS).reshape(4, 5) % CODES)[PERPLEXITY]
    assert even == pytest.approx(CODES, rel=1e-3)


def test_what_was_counted_is_in_checkpoints():
    usage, goes_on = Usage(CODES), Usage(CODES)
    usage.count(0, torch.arange(TOKENS).reshape(4, 5) % 7)
    goes_on.load_state_dict(usage.state_dict())
    codes = torch.full((4, 5), 8)
    assert usage.count(1, codes) == goes_on.count(1, codes)
    assert math.isclose(goes_on.count(2, codes)[USED], 8)
