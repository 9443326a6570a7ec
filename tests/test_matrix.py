"""Every tokenizer × scan order × schedule × attention backend × model: planned, and trained and sampled where it works.

What does not work is predicted from the tables at the end of docs/parts.md, of two parts each: no other combination is refused.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

import rarkit
from rarkit.sampling import PowerCosine, decode
from rarkit.training import draw_orders
from tests.rules import ROOT

PARTS = rarkit.parts()
STILL = {"name": "constant", "ratio": 0.0}
SMALL = {"hidden_size": 16, "depth": 1, "num_heads": 2, "mlp_hidden_size": 16, "dropout": 0.0}
# The network of the third is the released one; what it makes of an image does not matter here.
VQGAN = PARTS.tokenizers["maskgit_vqgan"](weights="unused").rehearsed()
KMEANS = {"name": "patch_kmeans", "codes": 9}
TOKENIZERS = {"pixel": ("pixel", 4, 1), "patch_kmeans": (KMEANS, 8, 1), "maskgit_vqgan": (VQGAN, 64, 3)}
"""By name: the part, and the side and channels of images that become grids of 4 × 4."""
TRAINS_ON_CUDA_ALONE = {"flex"}
ALL = TOKENIZERS, PARTS.scan_orders, PARTS.permutation_schedules, PARTS.attention_backends, PARTS.models


def table(heading: str) -> dict[tuple[str, str], str]:
    """The cells of a table of docs/parts.md, by row and column."""
    below = (ROOT / "docs/parts.md").read_text().partition(heading)[2]
    lines = list(itertools.takewhile(str.strip, itertools.dropwhile(lambda line: line[:1] != "|", below.splitlines())))
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if "---" not in line]
    return {(row[0], column): cell for row in rows[1:] for column, cell in zip(rows[0][1:], row[1:], strict=True)}


MODELS, ORDERS = table("## What goes with what"), table("Scan orders, by height")


def recipe(tokenizer: str, order: str, schedule: object, attention: str, model: str, **settings: object) -> rarkit.Recipe:
    part, side, channels = TOKENIZERS[tokenizer]
    return rarkit.make_recipe(
        dataset={"name": "generated", "height": side, "width": side, "channels": channels},
        tokenizer=part,
        scan_order=order,
        permutation_schedule=schedule,
        attention=attention,
        model={"name": model, **SMALL, **settings},
        train={"steps": 4, "batch_size": 2, "warmup_steps": 0},
        sample={"per_class": 1},
    )


def refusal(chosen: rarkit.Recipe) -> str:
    plan = rarkit.plan(chosen, "memory://matrix")
    return "" if plan.obstacle is None else str(plan.obstacle)


def works(order: str, schedule: str, attention: str, model: str) -> bool:
    """By the tables, with the settings that they name."""
    return "–" not in (ORDERS[order, "4 × 4"], MODELS[schedule, model], MODELS[attention, model])


def test_the_tables_have_all_parts():
    assert {row for row, _ in ORDERS} == set(PARTS.scan_orders)
    assert {row for row, _ in MODELS} == set(PARTS.permutation_schedules) | set(PARTS.attention_backends)
    assert {column for _, column in MODELS} == set(PARTS.models)
    # ``exported`` is one of the others, in a file.
    assert {*TOKENIZERS, "exported"} == set(PARTS.tokenizers)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("model", PARTS.models)
@pytest.mark.parametrize("attention", PARTS.attention_backends)
def test_all_combinations(attention, model):
    """A step of training and the first tokens of a sample, of all that the tables allow; all else is refused in planning."""
    networks = {}
    for tokenizer, order, schedule in itertools.product(*ALL[:3]):
        told = MODELS[schedule, model], MODELS[attention, model]
        part = STILL if "ratio = 0" in told[0] else schedule
        dropout = {"attention_dropout": 0.0} if "attention_dropout = 0" in told[1] else {}
        try:
            chosen = recipe(tokenizer, order, part, attention, model, **dropout)
            refused = refusal(chosen)
        except rarkit.RarkitError as error:
            refused = str(error)
        assert bool(refused) != works(order, schedule, attention, model), (tokenizer, order, schedule, refused)
        if refused:
            continue
        experiment = rarkit.plan(chosen, "memory://matrix").experiment
        config = experiment.config
        if tokenizer not in networks:
            networks[tokenizer] = chosen.model.create(config, chosen.attention.build(), 0).train()
        network = networks[tokenizer]
        generator = torch.Generator().manual_seed(0)
        tokens_BL = torch.randint(config.codebook_size, (2, 16), generator=generator)
        ratio = experiment.schedule.random_ratio(2, 4)
        orders_BL = torch.from_numpy(draw_orders(experiment.order_L, ratio, seed=0, step=2, indices=[0, 1]))
        with torch.set_grad_enabled(attention not in TRAINS_ON_CUDA_ALONE):
            logits_BLV = network(tokens_BL, torch.tensor([1, 2]), orders_BL, mask_seeds_B=torch.tensor([3, 4]))
            loss = functional.cross_entropy(logits_BLV.flatten(0, 1), tokens_BL.gather(1, orders_BL).flatten())
        assert loss.isfinite()
        if loss.requires_grad:
            loss.backward()
            assert all(weight.grad is None or weight.grad.isfinite().all() for weight in network.parameters())
        steps = decode(network, [1, 2], order=experiment.order_L, guidance=PowerCosine(scale=2.0, power=1.0))
        assert all(next(steps).probabilities_BV.isfinite().all() for _ in range(3))
        steps.close()
