"""What each process holds, and the passes that fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit.engine.degrees import degrees
from rarkit.engine.settings import TrainSettings
from rarkit.models import RARConfig
from rarkit.models.rar.family import RARCosts
from rarkit.training.memory import USABLE, fitting_micro_batch, in_words, largest_micro_batch, training_memory

CONFIG = RARConfig(
    hidden_size=64, depth=6, num_heads=4, mlp_hidden_size=256, seq_len=16, codebook_size=50, num_classes=10, attention_dropout=0.0
)
COSTS = RARCosts(CONFIG)
FSDP = {"data_parallel": "fsdp"}


def memory(processes=1, micro=None, precision="bfloat16", **changes):
    settings = TrainSettings(steps=4, batch_size=64, **changes)
    return training_memory(settings, COSTS, degrees(settings, processes, micro), precision=precision, keeps_weights=False)


@given(st.integers(1, 400), st.integers(0, 1000), st.integers(1, 20), st.floats(0, 1e4))
def test_the_largest_divisor_that_fits_is_taken(share, fixed, each, free):
    def total(size):
        return fixed + each * size

    found = fitting_micro_batch(share, total, free)
    fitting = [size for size in range(1, share + 1) if share % size == 0 and total(size) <= USABLE * free]
    assert found == (max(fitting) if fitting else None)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4]), st.floats(1e6, 1e9))
def test_more_memory_never_means_smaller_passes(processes, factor, free):
    settings = TrainSettings(steps=4, batch_size=64, **FSDP)
    small, large = (
        largest_micro_batch(settings, COSTS, processes, room, precision="bfloat16", keeps_weights=False)
        for room in (free, factor * free)
    )
    assert (small or 0) <= (large or 0)
    if large is not None:
        assert memory(processes, large, **FSDP).total <= USABLE * factor * free


@pytest.mark.parametrize(("shard", "replicate"), [(4, None), (2, 2), (None, 4), (None, None)])
def test_shards_hold_their_part(shard, replicate):
    whole, held = memory(ema_decay=0.9), memory(4, ema_decay=0.9, **FSDP, shard=shard, replicate=replicate)
    parts = shard or 4 // (replicate or 1)
    for use in ("weights", "gradients", "optimizer", "average"):
        assert getattr(held, use) == -(-getattr(whole, use) // parts)
    assert held.activations * 4 == whole.activations, "a process has a fourth of the images"
    assert (held.casts, whole.gathered) == (0, 0)
    assert held.gathered > 0


def test_copies_hold_everything():
    assert memory(4) == replace(memory(), activations=memory().activations // 4)


def test_gathered_weights_are_those_of_the_root_and_two_blocks():
    count, (depth, block) = CONFIG.parameter_count(), COSTS.blocks()
    root = count - depth * block
    gradients = 4 * max(block, root)
    assert memory(2, **FSDP).gathered == 2 * (root + 2 * block) + gradients
    assert memory(2, precision="float32", **FSDP).gathered == 4 * (root + 2 * block) + gradients
    assert memory(2, reshard_after_forward=False, **FSDP).gathered == 2 * count + gradients


def test_gradients_that_are_added_up_are_whole():
    assert memory(2, 16, **FSDP).gradients == memory().gradients == 2 * memory(2, **FSDP).gradients


def test_muon_has_one_moment():
    assert memory().optimizer - memory(optimizer="muon").optimizer == 4 * COSTS.hidden_weights() > 0


def test_words_name_all_that_is_held():
    held = memory(2, ema_decay=0.9, **FSDP)
    words = in_words(held)
    assert words.startswith(f"{held.total / 1e9:.1f} GB: weights ")
    assert all(use in words for use in ("gradients", "optimizer", "gathered", "average", "activations"))
    assert "casts" not in words
    assert sum(held.uses.values()) == held.total
    assert sum(memory().uses.values()) == memory().total, "with casts"
