"""What forward is given is checked in every model family: no label, token or order is taken for another without a word."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit.errors import GridError, UserError
from rarkit.models import RAR, LlamaAR, LlamaARConfig, RARConfig
from rarkit.sampling import decode
from rarkit.training import TargetAwarePositions, draw_orders

CODES, CLASSES, LENGTH = 8, 3, 6
SIZES = {
    "hidden_size": 16,
    "depth": 1,
    "num_heads": 2,
    "mlp_hidden_size": 16,
    "codebook_size": CODES,
    "num_classes": CLASSES,
    "attention_dropout": 0.0,
}
MODELS = {
    "rar": RAR(RARConfig(seq_len=LENGTH, **SIZES)).eval(),
    "llama_ar": LlamaAR(LlamaARConfig(seq_len=LENGTH, grid=(2, 3), **SIZES)).eval(),
}
pytestmark = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def arguments(**changes):
    given = {
        "tokens_BL": torch.arange(2 * LENGTH).reshape(2, LENGTH) % CODES,
        "labels_B": torch.tensor([0, CLASSES - 1]),
        "orders_BL": torch.arange(LENGTH),
        "mask_seeds_B": torch.arange(2),
    }
    return given | changes


def with_one(name, value):
    changed = arguments()[name].clone()
    changed.flatten()[1] = value
    return arguments(**{name: changed})


OUTSIDE = st.integers(-(2**40), 2**40)


@pytest.mark.parametrize("training", [False, True])
@given(value=OUTSIDE)
def test_labels_and_tokens_are_of_the_model(model, training, value):
    model.train(training)
    for name, count in (("labels_B", CLASSES), ("tokens_BL", CODES)):
        if 0 <= value < count:
            assert model(**with_one(name, value)).isfinite().all()
        else:
            with pytest.raises(UserError, match=f"{name[:5]} {value} is not one of the model's .* 0 … {count - 1}"):
                model(**with_one(name, value))
    model.eval()


@pytest.mark.parametrize("seed", ["a", 1.5, True, 2**64, -(2**63) - 1])
def test_seeds_are_whole_numbers_that_torch_takes(model, seed):
    with pytest.raises(UserError, match=r"the seed is .*; it must be a whole number from -9,223"):
        type(model)(model.config, seed=seed)


def test_seeds_of_numpy_are_as_good(model):
    again, expected = (type(model)(model.config, seed=seed).state_dict() for seed in (np.int64(0), 0))
    assert all(torch.equal(again[name], weight) for name, weight in expected.items())


@given(cells=st.lists(st.integers(-2, LENGTH + 1), min_size=LENGTH, max_size=LENGTH), batch=st.booleans())
def test_orders_visit_each_cell_once(model, cells, batch):
    orders = torch.tensor(cells)
    given_to_it = arguments(orders_BL=torch.stack([torch.arange(LENGTH), orders]) if batch else orders)
    if sorted(cells) == list(range(LENGTH)):
        model(**given_to_it)
    else:
        with pytest.raises(GridError, match="each of the 6 cells exactly once"):
            model(**given_to_it)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("labels_B", torch.tensor([0])),
        ("labels_B", torch.tensor([0.0, 1.0])),
        ("labels_B", torch.tensor([[0], [1]])),
        ("tokens_BL", torch.zeros(2, LENGTH)),
        ("tokens_BL", torch.zeros(2, LENGTH, dtype=torch.int32)),
        ("tokens_BL", torch.zeros(2, 2, 3, dtype=torch.int64)),
        ("tokens_BL", np.zeros((2, LENGTH), np.int64)),
        ("orders_BL", torch.arange(LENGTH).int()),
        ("orders_BL", torch.arange(LENGTH)[None]),
        ("orders_BL", torch.arange(LENGTH - 1)),
        ("dropped_B", torch.tensor([0, 1])),
        ("mask_seeds_B", torch.tensor([0.5, 1])),
    ],
)
def test_shapes_and_dtypes(model, name, value):
    with pytest.raises(UserError, match=f"the model was given {name} of"):
        model(**arguments(**{name: value}))


def test_a_compiled_model_is_one_graph(model):
    if isinstance(model, RAR):
        pytest.skip("the checks are those of the base class, and compiling takes seconds")
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(**arguments()), model(**arguments()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_training_step_on_a_gpu_waits_for_nothing(model):
    on_gpu = model.cuda().train()
    moved = {name: value.cuda() for name, value in arguments().items()}
    try:
        torch.cuda.set_sync_debug_mode("error")
        on_gpu(**moved).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        model.cpu().eval()


def test_forced_tokens_are_codes_of_the_model(model):
    for forced in (torch.full((1, LENGTH), CODES), torch.full((1, LENGTH), -1), torch.zeros(1, 3), torch.zeros(2, LENGTH).long()):
        with pytest.raises(UserError, match="forced_tokens"):
            next(decode(model, [0], order=range(LENGTH), forced_tokens=forced))


def test_positions_are_merged_along_an_order_alone(model):
    if isinstance(model, RAR):
        with pytest.raises(GridError, match="exactly once"):
            model.merge_positions(torch.zeros(LENGTH, dtype=torch.int64))


@given(prefix=st.integers(1, 3), seed=st.integers(0, 99))
def test_target_aware_positions_name_the_cell_to_be_predicted(model, prefix, seed):
    table = TargetAwarePositions(LENGTH, 4, prefix=prefix)
    orders = torch.from_numpy(draw_orders(np.arange(LENGTH), 1.0, seed=seed, step=0, indices=range(2)))
    placed = table(orders)
    assert placed.shape == (2, prefix + LENGTH - 1, 4)
    for t in range(LENGTH):
        entry = prefix - 1 + t
        own = prefix - 1 if t == 0 else prefix + orders[:, t - 1]
        assert torch.equal(placed[:, entry], table.pos_embed[own] + table.target_aware_pos_embed[prefix + orders[:, t]])
    assert torch.equal(table(orders[0]), placed[0])
    if isinstance(model, RAR):
        own = TargetAwarePositions(LENGTH, 16, prefix=2)
        rows = own.pos_embed.shape[0]
        tables = {name: getattr(model, name)[0, :rows] for name in ("pos_embed", "target_aware_pos_embed")}
        own.load_state_dict(tables)
        assert torch.equal(own(orders), model.positions(orders))
