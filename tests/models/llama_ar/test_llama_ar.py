"""The model against the same mathematics written out, and against what it claims to be."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rarkit.errors import UserError
from rarkit.models import LlamaAR, LlamaARConfig
from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.models.llama_ar.rotary import rotary
from tests.models.llama_ar.small import TINY, lively


def _written_out(model: LlamaAR, tokens_L: list[int], label: int, order_L: list[int]) -> torch.Tensor:
    """Logits (L, V) of one image in float64, positions as complex numbers, one head at a time."""
    config = model.config
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    width, size = config.grid[1], config.head_size
    ids = [config.codebook_size + label] + [tokens_L[cell] for cell in order_L[:-1]]
    places = [(0, 0)] + [(cell // width + 1, cell % width + 1) for cell in order_L[:-1]]
    frequencies = [config.rope_theta ** (-4 * number / size) for number in range(size // 4)]
    angles = torch.tensor([[place * f for place in (row, column) for f in frequencies] for row, column in places]).double()
    turns = torch.polar(torch.ones_like(angles), angles)

    def norm(x_LD, name):
        return x_LD / (x_LD.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * weights[name]

    def turned(x_LK):
        pairs = torch.complex(x_LK[:, : size // 2], x_LK[:, size // 2 :]) * turns
        return torch.cat([pairs.real, pairs.imag], dim=1)

    x_LD = weights["model.embed_tokens.weight"][ids]
    for layer in range(config.depth):
        prefix = f"model.layers.{layer}."
        normed_LD = norm(x_LD, prefix + "input_layernorm.weight")
        q_LD, k_LD, v_LD = (normed_LD @ weights[f"{prefix}self_attn.{letter}_proj.weight"].T for letter in "qkv")
        heads = []
        for head in range(config.num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = turned(q_LD[:, part]) @ turned(k_LD[:, part]).T / size**0.5
            hidden = torch.ones_like(scores).triu(1).bool()
            heads.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v_LD[:, part])
        x_LD = x_LD + torch.cat(heads, dim=1) @ weights[prefix + "self_attn.o_proj.weight"].T
        normed_LD = norm(x_LD, prefix + "post_attention_layernorm.weight")
        gate_LH, up_LH = (normed_LD @ weights[f"{prefix}mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x_LD = x_LD + (gate_LH * gate_LH.sigmoid() * up_LH) @ weights[prefix + "mlp.down_proj.weight"].T
    return norm(x_LD, "model.norm.weight") @ weights["lm_head.weight"].T


@given(seed=st.integers(0, 2**16), label=st.integers(0, TINY.num_classes), heads=st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=20, deadline=None)
def test_it_is_what_is_written_out(seed, label, heads):
    """``label`` may be that of "no class", which ``dropped_B`` stands for."""
    config = TINY.model_copy(update={"num_heads": heads, "rope_theta": 50.0})
    model, generator = lively(config), torch.Generator().manual_seed(seed)
    tokens_L, order_L = torch.randint(config.codebook_size, (12,), generator=generator), torch.randperm(12, generator=generator)
    dropped_B = torch.tensor([label == config.num_classes])
    with torch.no_grad():
        logits_LV = model(tokens_L[None], torch.tensor([label % config.num_classes]), order_L, dropped_B=dropped_B)[0]
    expected_LV = _written_out(model, tokens_L.tolist(), label, order_L.tolist())
    torch.testing.assert_close(logits_LV.double(), expected_LV, atol=2e-5 * expected_LV.abs().max().item(), rtol=0)


def test_names_and_shapes_are_those_of_transformers_llama():
    names = {name.replace("layers.1", "layers.0"): tuple(tensor.shape) for name, tensor in LlamaAR(TINY).state_dict().items()}
    width, hidden = TINY.hidden_size, TINY.mlp_hidden_size
    block = "model.layers.0."
    assert names == {
        "model.embed_tokens.weight": (TINY.codebook_size + TINY.num_classes + 1, width),
        **{f"{block}self_attn.{letter}_proj.weight": (width, width) for letter in "qkvo"},
        f"{block}mlp.gate_proj.weight": (hidden, width),
        f"{block}mlp.up_proj.weight": (hidden, width),
        f"{block}mlp.down_proj.weight": (width, hidden),
        f"{block}input_layernorm.weight": (width,),
        f"{block}post_attention_layernorm.weight": (width,),
        "model.norm.weight": (width,),
        "lm_head.weight": (TINY.codebook_size, width),
    }


def test_positions_are_those_of_the_cells_and_the_class_is_outside_the_grid():
    orders = torch.stack([torch.arange(12), torch.arange(12).flip(0)])
    together = rotary(TINY, orders)
    for order_L, cos_SK, sin_SK in zip(orders, *together, strict=True):
        alone = rotary(TINY, order_L)
        assert torch.equal(alone.cos, cos_SK)
        assert torch.equal(alone.sin, sin_SK)
        # Nothing turns at (0, 0); the cells differ from it, and from each other.
        assert torch.equal(cos_SK[0], torch.ones(TINY.head_size))
        assert len({tuple(sin_S) for sin_S in sin_SK.tolist()}) == len(order_L)


@given(st.integers(0, 11), st.integers(0, 11), st.integers(-2, 2), st.integers(-3, 3))
@settings(max_examples=50, deadline=None)
def test_scores_depend_on_how_far_apart_two_cells_are(one, other, down, right):
    moved = [((cell // 4) + down, (cell % 4) + right) for cell in (one, other)]
    if any(not (0 <= row < 3 and 0 <= column < 4) for row, column in moved):
        return
    there = [row * 4 + column for row, column in moved]
    generator = torch.Generator().manual_seed(0)
    q_K, k_K = torch.randn(2, 1, TINY.head_size, generator=generator)

    def score(query_cell, key_cell):
        # The last cell of an order turns nothing: its token predicts nothing.
        turns = [rotary(TINY, torch.tensor([cell, 0])).at(1) for cell in (query_cell, key_cell)]
        return (turns[0].turn(q_K[None]) * turns[1].turn(k_K[None])).sum()

    torch.testing.assert_close(score(*there), score(one, other), atol=1e-4, rtol=0)


def test_initial_weights_follow_the_seed():
    first, same, other = (LlamaAR(TINY, seed=seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in first.items():
        assert torch.equal(tensor, same[name])
        if "norm" in name:
            assert (tensor == 1).all(), name
        else:
            assert not torch.equal(tensor, other[name]), name
            assert tensor.std().item() == pytest.approx(0.02, rel=0.2), name


@given(
    heads=st.integers(1, 3),
    quarter=st.integers(1, 4),
    depth=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    sizes=st.tuples(*[st.integers(1, 30)] * 3),
)
@settings(max_examples=25, deadline=None)
def test_parameter_count_is_what_the_model_holds(heads, quarter, depth, grid, sizes):
    family = LlamaARFamily(hidden_size=heads * 4 * quarter, depth=depth, num_heads=heads, mlp_hidden_size=sizes[0])
    config = family.config(grid=grid, codebook_size=sizes[1], num_classes=sizes[2])
    with torch.device("meta"):
        model = LlamaAR(config)
    assert config.parameter_count() == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(("width", "expected"), [(64, 176), (192, 512), (768, 2048), (1024, 2816), (1280, 3584), (4096, 11008)])
def test_the_mlp_is_as_wide_as_llamas(width, expected):
    family = LlamaARFamily(hidden_size=width, depth=1, num_heads=4)
    assert family.config(grid=(2, 2), codebook_size=2, num_classes=1).mlp_hidden_size == expected


@pytest.mark.parametrize("change", [{"hidden_size": 36}, {"num_heads": 3}, {"hidden_size": 8, "num_heads": 4}])
def test_widths_that_cannot_be_turned_are_refused(change):
    with pytest.raises(ValidationError, match=r"multiple of 4 · num_heads"):
        LlamaARConfig(**{**TINY.model_dump(), **change})
    with pytest.raises(ValidationError, match=r"multiple of 4 · num_heads"):
        LlamaARFamily(**{"hidden_size": 32, "depth": 1, "num_heads": 2, **change})


def test_a_grid_of_another_length_is_refused():
    with pytest.raises(ValidationError, match=r"grid 3 × 4 has 12 cells, .*seq_len is 13"):
        LlamaARConfig(**{**TINY.model_dump(), "seq_len": 13})


def test_attention_dropout_without_seeds_is_refused():
    with pytest.raises(UserError, match="mask_seeds_B"):
        lively().train()(torch.zeros(1, 12, dtype=torch.int64), torch.tensor([0]), torch.arange(12))


def test_it_attends_with_what_it_was_given_and_hands_on_the_seeds():
    calls = []
    plain = lively().attention

    def spy(q_BNSK, k_BNTK, v_BNTK, *, causal, dropout=None):
        calls.append((tuple(q_BNSK.shape), causal, dropout))
        return plain(q_BNSK, k_BNTK, v_BNTK, causal=causal)

    model = lively(attention=spy).train()
    seeds_B = torch.tensor([3, 4])
    model(torch.zeros(2, 12, dtype=torch.int64), torch.tensor([0, 1]), torch.arange(12), mask_seeds_B=seeds_B)
    assert [call[:2] for call in calls] == [((2, 2, 12, 16), True)] * TINY.depth
    assert [call[2].layer for call in calls] == [0, 1]
    assert all(call[2].seeds_B is seeds_B and call[2].probability == TINY.attention_dropout for call in calls)


def test_autocast_stays_close_to_float32():
    model = lively(scale=0.05)
    batch = torch.randint(20, (3, 12), generator=torch.Generator().manual_seed(0)), torch.arange(3), torch.arange(12)
    with torch.no_grad():
        exact = model(*batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(*batch)
    assert rough.dtype == torch.bfloat16
    assert (exact - rough).abs().max() < 0.02 * exact.abs().max()


def test_planning_loads_no_torch():
    code = (
        "import sys; from rarkit.models.llama_ar.family import LlamaARFamily as F; f = F(hidden_size=64, depth=2, num_heads=2); "
        "c = f.config(grid=(4, 4), codebook_size=8, num_classes=2); f.costs(c).step_flops(2, checkpointing=True); "
        "f.check_schedule(f.default_schedule()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
