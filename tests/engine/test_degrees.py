"""How a batch is divided: every sample once, by whatever number of processes and passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rarkit.engine.degrees import degrees, resumed_micro
from rarkit.engine.facts import Facts
from rarkit.engine.learning import Learning
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.runtime.ranks import Ranks

sizes = st.integers(1, 12)
limits = st.none() | st.integers(1, 40)


def settings(batch_size=64, **changes):
    return TrainSettings(steps=4, batch_size=batch_size, **changes)


@given(sizes, st.integers(1, 12), limits)
def test_every_sample_is_in_one_pass(size, share, most):
    divided = degrees(settings(size * share), size, most)
    assert divided.micro <= min(most or share, share)
    passes = [indices for rank in range(size) for indices in divided.passes(rank)]
    assert {len(indices) for indices in passes} == {divided.micro}
    assert len(passes) == size * divided.accumulation
    np.testing.assert_array_equal(np.concatenate(passes), np.arange(size * share))


@given(sizes, st.integers(1, 60), limits, st.integers(1, 2**32), sizes)
def test_a_training_goes_on_with_any_number_of_processes(size, share, most, kept, before):
    """Whatever a checkpoint says of its passes, of which memory holds ``most`` samples now."""
    chosen = settings(size * share)
    divided = degrees(chosen, size, resumed_micro(share, kept, before, size, most))
    assert share % divided.micro == 0
    if before == size:
        assert divided == degrees(chosen, size, kept), "as it was"
    elif most is not None:
        assert divided.micro <= most
    if share % kept == 0 and kept <= (most or kept):
        assert divided.micro == kept


@pytest.mark.parametrize(
    ("processes", "micro", "expected"),
    [(1, None, 12), (1, 6, 6), (2, None, 4), (4, None, 16), (4, 8, 8)],
    ids=["does not divide", "nor fits", "same processes", "divides no more", "what fits"],
)
def test_the_engine_keeps_the_passes_of_a_checkpoint_where_it_can(processes, micro, expected):
    batch = {1: 12, 2: 8, 4: 64}[processes]
    facts = Facts(precision="float32", micro_batch_size={1: 5, 2: 4, 4: 32}[processes], processes=2)
    ranks = Ranks() if processes == 1 else Ranks(0, processes, store=object())
    assert Learning(ranks=ranks)._degrees(settings(batch), micro, facts).micro == expected


@pytest.mark.parametrize("every", [True, False, 1, 7])
def test_blocks_are_recomputed_all_or_every_nth(every):
    chosen = settings(activation_checkpointing=every).activation_checkpointing
    assert (chosen, type(chosen)) == (every, type(every))


@pytest.mark.parametrize("every", [-1, 1.5, "all"])
def test_no_other_blocks_are_recomputed(every):
    with pytest.raises(ValidationError, match="activation_checkpointing"):
        settings(activation_checkpointing=every)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, 7, r"64 cannot be shared evenly by 7 processes\. Start 4 processes, or set train\.batch_size to 63 or 70"),
        ({"micro_batch_size": 64}, 2, r"micro_batch_size 64 does not divide the 32 images .* Set it to 32, or leave it out"),
        ({"batch_size": 48, "micro_batch_size": 16}, 2, r"does not divide the 24 images .* Set it to 12"),
        ({"data_parallel": "fsdp", "shard": 3}, 4, r"train\.shard 3 cannot be had with 4 processes"),
        ({"data_parallel": "fsdp", "shard": 2, "replicate": 4}, 4, r"train\.replicate 4 and train\.shard 2 cannot be had"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_the_cure(changes, size, message):
    with pytest.raises(RecipeError, match=message):
        degrees(settings(**changes), size)
