"""Weights as the start of another training: kept where the models agree, new classes, interpolated positions, all said."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rarkit.attention.sdpa import SDPA
from rarkit.errors import WeightsError
from rarkit.models.adaptation import GivenWeights
from rarkit.models.base import ModelFamily
from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.models.rar.family import RARFamily

CODES = 7
FAMILIES = {
    "rar": RARFamily(hidden_size=8, depth=1, num_heads=2, class_dropout=0.0),
    "prefix": RARFamily(hidden_size=8, depth=1, num_heads=2, conditioning="prefix", target_aware=False),
    "llama_ar": LlamaARFamily(hidden_size=8, depth=1, num_heads=1),
}
TABLES = ("pos_embed", "target_aware_pos_embed")
sides = st.integers(1, 6)


def model(name, grid=(3, 4), classes=3, seed=0, codes=CODES, **changes):
    family = FAMILIES[name].model_copy(update=changes)
    config = family.config(grid=grid, codebook_size=codes, num_classes=classes)
    return family, family.create(config, SDPA().build(), seed)


def given_by(trained, grid=(3, 4), same=True, **changes):
    about = {"config": trained.config.model_dump_json(), "grid": grid, "same_classes": same} | changes
    return GivenWeights("there", trained.state_dict(), **about)


def adapted(weights, name, grid=(3, 4), classes=3, **changes):
    family, new = model(name, grid, classes, seed=1, **changes)
    tensors, told = family.adapted(new.config, grid, weights, new.state_dict())
    before = {key: value.clone() for key, value in new.state_dict().items()}
    new.load_state_dict(tensors)
    return new, before, told


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_a_like_model_stay_as_they_are(name):
    _, trained = model(name)
    new, _, told = adapted(given_by(trained), name)
    assert told == ()
    assert all(torch.equal(new.state_dict()[key], value) for key, value in trained.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("classes", "same"), [(5, False), (5, None), (2, None), (3, False)])
def test_other_classes_get_new_embeddings(name, classes, same):
    _, trained = model(name)
    new, before, told = adapted(given_by(trained, same=same), name, classes=classes)
    assert told == (f"the {classes} classes get new embeddings, because there has 3 other classes",)
    for key, value in trained.state_dict().items():
        if key not in ("embeddings.weight", "model.embed_tokens.weight"):
            assert torch.equal(new.state_dict()[key], value)
            continue
        rows, first = new.state_dict()[key], len(value) - 3 - 1
        assert torch.equal(rows[:first], value[:first])
        assert torch.equal(rows[-1], value[-1])
        assert torch.equal(rows[first:-1], before[key][first:-1])


def test_classes_without_names_are_taken_for_the_same_and_it_is_said():
    _, trained = model("rar")
    new, _, told = adapted(given_by(trained, same=None), "rar")
    assert told == ("there does not name its 3 classes: they are taken for those of the dataset",)
    assert torch.equal(new.embeddings.weight, trained.embeddings.weight)


@settings(max_examples=25)
@given(before=st.tuples(sides, sides), now=st.tuples(sides, sides), level=st.floats(-3, 3))
def test_a_table_that_is_the_same_everywhere_stays_so_on_any_grid(before, now, level):
    _, trained = model("rar", before)
    old, many = before[0] * before[1], now[0] * now[1]
    with torch.no_grad():
        for name in TABLES:
            getattr(trained, name)[:, 2 : 2 + old] = level
        trained.timesteps_embeddings[:, 1 : 1 + old] = level
    new, fresh, told = adapted(given_by(trained, before), "rar", now)
    for name in TABLES:
        table = new.state_dict()[name][0]
        torch.testing.assert_close(table[2 : 2 + many], torch.full((many, 8), level), rtol=1e-5, atol=1e-5)
        assert torch.equal(table[:2], trained.state_dict()[name][0, :2])
        rest = trained.state_dict()[name] if before == now else fresh[name]
        assert torch.equal(table[2 + many :], rest[0, 2 + many :])
    steps = new.timesteps_embeddings[0]
    torch.testing.assert_close(steps[1 : 1 + many], torch.full((many, 8), level), rtol=1e-5, atol=1e-5)
    assert torch.equal(steps[0], trained.timesteps_embeddings[0, 0])
    shown = f"positions are interpolated from a grid of {before[0]} × {before[1]} to {now[0]} × {now[1]} (bicubic)"
    assert (shown in told) == (before != now)
    assert any(one.startswith("embeddings of steps") for one in told) == (old != many)


def test_positions_lie_where_they_lay_in_the_image():
    """A table that grows with row and column grows as much over the same stretch of the image, away from its edges."""
    before, now = (6, 5), (12, 20)
    _, trained = model("rar", before)
    rows, columns = torch.meshgrid((torch.arange(6) + 0.5) / 6, (torch.arange(5) + 0.5) / 5, indexing="ij")
    with torch.no_grad():
        trained.pos_embed[0, 2:32] = (rows + 3 * columns).reshape(30, 1)
    new, _, _ = adapted(given_by(trained, before), "rar", now)
    rows, columns = torch.meshgrid((torch.arange(12) + 0.5) / 12, (torch.arange(20) + 0.5) / 20, indexing="ij")
    found = new.pos_embed.detach()[0, 2:242].mean(1).reshape(12, 20)
    torch.testing.assert_close(found[3:-3, 6:-6], (rows + 3 * columns)[3:-3, 6:-6], rtol=1e-5, atol=1e-5)


def test_first_and_last_step_stay_where_they_are():
    _, trained = model("rar", (2, 3))
    new, _, _ = adapted(given_by(trained, (2, 3)), "rar", (4, 5))
    assert torch.equal(new.timesteps_embeddings[0, 1], trained.timesteps_embeddings[0, 1])
    torch.testing.assert_close(new.timesteps_embeddings[0, 20], trained.timesteps_embeddings[0, 6])


@pytest.mark.parametrize(("grid", "expected"), [((2, 6), "12 × 1"), (None, None)])
def test_the_grid_counts_and_not_its_number_of_cells(grid, expected):
    _, trained = model("rar", (2, 6))
    new, _, told = adapted(given_by(trained, grid), "rar", (12, 1))
    assert (len(told) == 1) == (expected is not None)
    assert torch.equal(new.pos_embed, trained.pos_embed) == (expected is None)
    assert torch.equal(new.timesteps_embeddings, trained.timesteps_embeddings)


def test_an_unknown_grid_is_square_or_asked_for():
    _, trained = model("rar", (4, 4))
    _, _, told = adapted(given_by(trained, None), "rar", (2, 3))
    assert told[0] == "positions are interpolated from a grid of 4 × 4 to 2 × 3 (bicubic)"
    _, trained = model("rar", (3, 4))
    with pytest.raises(WeightsError, match=r"has 12 tokens per image, and does not say in which grid\. Name the folder of the run"):
        adapted(given_by(trained, None), "rar", (2, 3))
    with pytest.raises(WeightsError, match=r"is damaged: it has 12 positions for a grid of 5 × 5"):
        adapted(given_by(trained, (5, 5)), "rar", (2, 3))


def test_rotary_positions_need_nothing_and_it_is_said():
    _, trained = model("llama_ar")
    new, _, told = adapted(given_by(trained), "llama_ar", (5, 6))
    assert told == ("rotary positions, trained on a grid of 3 × 4, are used on 5 × 6 as they are",)
    assert all(torch.equal(new.state_dict()[key], value) for key, value in trained.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": CODES + 2}, r"codes|codebook_size"),
        ({"depth": 2}, "depth"),
        ({"hidden_size": 16}, "hidden_size"),
    ],
)
def test_another_model_is_refused(name, changes, message):
    _, trained = model(name)
    for config in ({}, {"config": None}):
        with pytest.raises(WeightsError, match=message):
            adapted(given_by(trained, same=False, **config), name, classes=4, **changes)


def test_a_model_of_another_family_and_a_merged_one_are_refused():
    _, llama = model("llama_ar")
    with pytest.raises(WeightsError, match="there does not fit the model"):
        adapted(given_by(llama, config=None), "rar")
    with pytest.raises(WeightsError, match="is not that of this model"):
        adapted(given_by(llama), "rar")
    _, trained = model("rar")
    merged = trained.merge_positions(torch.arange(12))
    with pytest.raises(WeightsError, match=r"merged for one scan order.*Name the model before it was merged"):
        adapted(given_by(merged), "rar")


def test_a_family_that_adapts_nothing_demands_equal_shapes():
    _, trained = model("rar")
    family, new = model("rar", seed=1)
    weights, state = given_by(trained, same=False), new.state_dict()
    tensors, told = ModelFamily.adapted(family, new.config, (3, 4), weights, state)
    assert tensors.keys() == state.keys()
    assert told == ("the classes of there are others, whose weights are kept as they are",)
    with pytest.raises(WeightsError, match=r"wrong shape: .*Start from weights of a model like this one"):
        ModelFamily.adapted(family, new.config, (3, 4), weights, model("rar", classes=4)[1].state_dict())


@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_alone_tell_what_is_adapted(name):
    _, trained = model(name)
    weights = given_by(trained, same=False)
    shapes = {key: value.to("meta") for key, value in weights.tensors.items()}
    family, new = model(name, (5, 2), 4)
    on_meta = {key: value.to("meta") for key, value in new.state_dict().items()}
    about = GivenWeights("there", shapes, weights.config, weights.grid, False)
    seen = family.adapted(new.config, (5, 2), about, on_meta)
    assert seen.changes == family.adapted(new.config, (5, 2), weights, new.state_dict()).changes
    assert all(value.is_meta for value in seen.tensors.values())


def test_given_weights_are_left_as_they_are():
    _, trained = model("rar")
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    adapted(given_by(trained, same=False), "rar", (5, 2), 4)
    assert all(torch.equal(trained.state_dict()[key], value) for key, value in before.items())
