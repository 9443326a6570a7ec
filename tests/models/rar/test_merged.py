"""A merged model against the one it comes from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.errors import WeightsError
from rarkit.models import MergedRAR
from tests.models.rar.small import TINY, lively, parity

PERMUTATIONS = st.permutations(range(TINY.seq_len)).map(torch.tensor)


@given(order_L=PERMUTATIONS, seed=st.integers(0, 2**16), batch=st.integers(1, 4))
@settings(max_examples=12)
def test_merged_logits_are_the_models(order_L, seed, batch):
    """Within 1e-5."""
    model, generator = lively(), torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(TINY.codebook_size, (batch, TINY.seq_len), generator=generator)
    labels_B = torch.randint(TINY.num_classes, (batch,), generator=generator)
    dropped_B = torch.rand(batch, generator=generator) < 0.3
    merged = model.merge_positions(order_L)
    with torch.no_grad():
        expected = model(tokens_BL, labels_B, order_L, dropped_B=dropped_B)
        for orders in (order_L, order_L.expand(batch, -1)):
            logits_BLV = merged(tokens_BL, labels_B, orders, dropped_B=dropped_B)
            torch.testing.assert_close(logits_BLV, expected, atol=1e-5, rtol=0)


def test_merged_parity_with_the_released_raster_logits():
    small = parity()
    order_L = torch.arange(16)
    with torch.no_grad():
        logits_BLV = small.model.merge_positions(order_L)(
            small.tensors["inputs/tokens"],
            small.tensors["inputs/labels"],
            order_L,
            dropped_B=small.tensors["inputs/label_dropped"],
        )
    torch.testing.assert_close(logits_BLV, small.tensors["expect/raster/logits"], atol=2e-5, rtol=0)


@given(order_L=PERMUTATIONS, other_L=PERMUTATIONS)
@settings(max_examples=12)
def test_merged_model_knows_one_order(order_L, other_L):
    merged = lively().merge_positions(order_L)
    tokens_BL, labels_B = torch.zeros(2, TINY.seq_len, dtype=torch.int64), torch.tensor([0, 1])
    orders_BL = torch.stack([order_L, other_L])
    if torch.equal(order_L, other_L):
        merged(tokens_BL, labels_B, orders_BL)
    else:
        cells = ", ".join(str(cell) for cell in order_L[:8].tolist())
        with pytest.raises(WeightsError, match=f"merged for the scan order {cells}, …"):
            merged(tokens_BL, labels_B, orders_BL)


def test_merging_replaces_two_tables_by_one_and_shares_the_rest():
    model = lively()
    merged = model.merge_positions(torch.arange(TINY.seq_len))
    assert isinstance(merged, MergedRAR)
    assert not merged.training
    state, whole = merged.state_dict(), model.state_dict()
    assert state.keys() - whole.keys() == {"scan_pos_embed", "scan_order"}
    assert whole.keys() - state.keys() == {"pos_embed", "target_aware_pos_embed"}
    assert state["scan_pos_embed"].shape == (1, TINY.seq_len + 1, TINY.hidden_size)
    assert all(state[name].data_ptr() == whole[name].data_ptr() for name in state.keys() & whole.keys())
