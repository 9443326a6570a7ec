"""What all quantizers promise, and what each does of its own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vq_trainings import QUANTIZERS

from rarkit_vq import FSQ, LFQ, VQ, SimVQ
from rarkit_vq.quantizers import AveragedCodes, PatchCodes, dimensions, make_quantizer, nearest

KINDS = [*QUANTIZERS, "patches"]


def made(kind, chosen=None):
    """A quantizer whose codes are spread, in training mode; and the numbers of its vectors."""
    torch.manual_seed(0)
    if kind == "patches":
        quantizer = PatchCodes(VQ(codes=16), 6)
        torch.nn.init.normal_(quantizer.codebook_embed_VZ)
        return quantizer, 6
    chosen = chosen or QUANTIZERS[kind]
    quantizer, count = make_quantizer(chosen, tokens=64), dimensions(chosen)
    quantizer.begin(torch.randn(200, count))
    return quantizer, count


@pytest.fixture(autouse=True)
def _own_randomness():
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("kind", KINDS)
def test_training_and_encoding_give_the_same_codes(kind):
    quantizer, count = made(kind)
    vectors_BZHW = torch.randn(3, count, 2, 5)
    quantized_BZHW, codes_BHW, loss = quantizer(vectors_BZHW)
    assert torch.equal(codes_BHW.flatten(), quantizer.codes(vectors_BZHW.movedim(1, -1).flatten(0, -2)))
    # What the decoder is trained on is what it gets of codes alone.
    torch.testing.assert_close(quantized_BZHW, quantizer.table()[codes_BHW].movedim(-1, 1), rtol=1e-5, atol=1e-6)
    assert loss.shape == ()
    assert loss.isfinite()


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_in_float32_under_autocast(kind):
    quantizer, count = made(kind)
    vectors_BZHW = torch.randn(3, count, 2, 5).bfloat16()
    plain = quantizer(vectors_BZHW.float())
    with torch.autocast("cpu", torch.bfloat16):
        low = quantizer(vectors_BZHW)
    assert low[0].dtype == low[2].dtype == torch.float32
    assert all(torch.equal(one, other) for one, other in zip(low, plain, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_encoder(kind):
    quantizer, count = made(kind)
    vectors_BZHW = torch.randn(3, count, 2, 5, requires_grad=True)
    quantized_BZHW, _, loss = quantizer(vectors_BZHW)
    (quantized_BZHW.sum() + loss).backward()
    assert vectors_BZHW.grad.flatten(2).norm(dim=1).min() > 0


@pytest.mark.parametrize("kind", ["vq", "cosine", "simvq", "patches"])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), count=st.integers(1, 40))
def test_the_code_is_that_of_the_nearest_vector(kind, seed, count):
    quantizer, numbers = made(kind)
    vectors_MZ = torch.randn(count, numbers, generator=torch.Generator().manual_seed(seed))
    table_VZ = quantizer.table().double()
    compared_MZ = torch.nn.functional.normalize(vectors_MZ.double(), dim=1) if kind == "cosine" else vectors_MZ.double()
    distance_MV = (compared_MZ[:, None] - table_VZ).square().sum(-1)
    chosen_M = distance_MV.gather(1, quantizer.codes(vectors_MZ)[:, None])[:, 0]
    torch.testing.assert_close(chosen_M, distance_MV.min(1).values, rtol=1e-5, atol=1e-6)


def test_the_nearest_is_found_in_pieces_too(monkeypatch):
    vectors_MZ, table_VZ = torch.randn(50, 4), torch.randn(7, 4)
    whole_M = nearest(vectors_MZ, table_VZ)
    monkeypatch.setattr("rarkit_vq.quantizers.DISTANCES_AT_ONCE", 7 * 3)
    assert torch.equal(nearest(vectors_MZ, table_VZ), whole_M)


@pytest.mark.parametrize("kind", ["fsq", "even", "lfq"])
def test_codes_without_a_codebook_number_their_table(kind):
    quantizer, _ = made(kind)
    table_VZ = quantizer.table()
    assert len(table_VZ.unique(dim=0)) == QUANTIZERS[kind].codebook_size() == len(table_VZ)
    # Far out, where squashing changes no sign and no order, the outermost levels have the outermost codes.
    corner_Z = torch.full((table_VZ.shape[1],), 50.0)
    assert quantizer.codes(torch.stack([-corner_Z, corner_Z])).tolist() == [0, len(table_VZ) - 1]


def test_even_squashing_spreads_normal_numbers_evenly():
    quantizer, _ = made("fsq", FSQ(levels=(101,), even=True))
    share_V = torch.bincount(quantizer.codes(torch.randn(200_000, 1)), minlength=101) / 200_000
    # As many in each tenth between the outermost levels, to which rounding gives half a level.
    tenths = share_V[1:-1].reshape(-1, 9).sum(1) / 9
    assert (tenths * 100 - 1).abs().max() < 0.25


def test_even_squashing_is_that_of_the_paper():
    quantizer, _ = made("fsq", FSQ(levels=(5,), even=True))
    numbers_M1 = torch.linspace(-3, 3, 101)[:, None]
    squashed_M = (2 * torch.sigmoid(1.6 * numbers_M1[:, 0]) - 1) * 2 * (1 + 1e-3)
    assert torch.equal(quantizer.codes(numbers_M1), squashed_M.round().long() + 2)


def test_codes_are_averages_of_their_vectors():
    quantizer, count = made("vq", VQ(codes=4, dimensions=3, decay=0.5, dead_below=0.0))
    before_VZ, vectors_MZ = quantizer.table().clone(), torch.randn(64, count)
    sizes_V, sums_VZ = (buffer[0].clone() for buffer in (quantizer.vq._codebook.cluster_size, quantizer.vq._codebook.embed_avg))
    codes_M = quantizer.codes(vectors_MZ)
    quantizer.follow(vectors_MZ, codes_M)
    one_hot_MV = torch.nn.functional.one_hot(codes_M, 4).float()
    expected_VZ = (sums_VZ + one_hot_MV.T @ vectors_MZ) / (sizes_V + one_hot_MV.sum(0))[:, None]
    torch.testing.assert_close(quantizer.table(), expected_VZ, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(quantizer.table(), before_VZ, atol=1e-2)


def test_nothing_moves_before_the_step_is_over():
    quantizer, count = made("vq")
    before_VZ = quantizer.table().clone()
    for _ in range(3):
        quantizer(torch.randn(3, count, 2, 5))
    assert torch.equal(quantizer.table(), before_VZ)


@pytest.mark.parametrize("cosine", [False, True])
def test_dead_codes_are_put_to_vectors_of_the_batch(cosine):
    quantizer, count = made("vq", VQ(codes=8, dimensions=3, decay=0.5, dead_below=0.5, cosine=cosine))
    assert isinstance(quantizer, AveragedCodes)
    # All in one direction: one code gets them, and the others die.
    vectors_MZ = torch.ones(64, count) + 0.01 * torch.randn(64, count)
    for _ in range(8):
        quantizer.follow(vectors_MZ, quantizer.codes(vectors_MZ))
    compared_MZ = torch.nn.functional.normalize(vectors_MZ, dim=1) if cosine else vectors_MZ
    assert torch.cdist(quantizer.table(), compared_MZ).min(1).values.max() < 0.02


@pytest.mark.parametrize("chosen", [VQ(codes=10), SimVQ(codes=10), FSQ(levels=(3, 4)), LFQ(bits=3)])
def test_the_table_has_the_size_of_the_codebook(chosen):
    assert make_quantizer(chosen, tokens=10).table().shape == (chosen.codebook_size(), dimensions(chosen))
