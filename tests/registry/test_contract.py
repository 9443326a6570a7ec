"""Parts that break the contract of their kind are named before training, whichever way they lie."""

from __future__ import annotations

import math
from typing import Literal, final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rarkit import (
    Dataset,
    FeatureExtractor,
    FeatureModel,
    Features,
    ImageBlock,
    ImageInfo,
    ImageReader,
    PermutationSchedule,
    ScanOrder,
    Tokenizer,
    TokenizerModel,
    load_recipe,
    plan,
    run,
)
from rarkit.attention.base import attend
from rarkit.attention.plain import plain_attention
from rarkit.builtin import rarkit_scan_orders
from rarkit.datasets.base import CheckedReader
from rarkit.engine.degrees import degrees
from rarkit.engine.trainer import Trainer
from rarkit.errors import DatasetError, PluginError
from rarkit.models import RAR
from rarkit.models.base import ModelFamily
from rarkit.models.rar.family import RARFamily
from rarkit.recipe.experiment import resolve
from rarkit.registry.contract import origin
from rarkit.sampling import generate
from rarkit.sampling.plain import PlainDecoder
from rarkit.testing import orders
from rarkit.training.next_token import NextToken
from tests.models.rar.small import TINY
from tests.rules import ROOT

# Parts without a plugin are not in the unions of the recipe's fields.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
RECIPE = load_recipe(str(ROOT / "recipes/digits.toml"), ["train.steps=4", "train.warmup_steps=0", "train.batch_size=4"])


@final
class Order(ScanOrder):
    """Returns what it is given."""

    name: Literal["liar"] = "liar"

    def order(self, height, width):
        return RETURNED[0](height * width)


@final
class Ratio(PermutationSchedule):
    """Returns what it is given, at one point of training."""

    name: Literal["liar"] = "liar"

    def random_ratio(self, step, total):
        return RETURNED[0] if step == total // 2 else 0.5


RETURNED = [None]


@pytest.fixture
def returns():
    """Sets what the liars return."""
    yield lambda value: RETURNED.__setitem__(0, value)
    RETURNED[0] = None


def swapped(length):
    order = np.arange(length)
    order[1] = 0
    return order


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        (lambda length: np.arange(length, dtype=np.int32), r"returns int32 \(16,\)"),
        (lambda length: np.arange(length, dtype=np.float64), r"returns float64 \(16,\)"),
        (lambda length: np.arange(length).reshape(4, -1), r"returns int64 \(4, 4\)"),
        (lambda length: np.arange(length - 1), r"returns int64 \(15,\)"),
        (lambda length: list(range(length)), "returns list"),
        (lambda length: np.arange(length)[::-1], r"returns a view that is not contiguous on a grid of 4×4: return \.copy\(\)"),
        (swapped, "visits cell 0 2 times and cell 1 never"),
        (lambda length: np.arange(length) + 1, "visits cell 16 on a grid of 4×4, whose cells are 0 to 15"),
        (lambda length: np.arange(length) - 1, "visits cell -1"),
    ],
)
def test_orders_are_checked_when_a_recipe_is_planned(returns, order, fault):
    returns(order)
    message = rf"^scan order 'liar' of tests\.registry\.test_contract\.Order {fault}.*Choose another part, or correct this one\.$"
    with pytest.raises(PluginError, match=message):
        plan(RECIPE.model_copy(update={"scan_order": Order()}), "memory://nothing")
    good = resolve(RECIPE)
    with pytest.raises(PluginError, match=message):
        good.with_recipe(RECIPE.model_copy(update={"scan_order": Order()}))


@given(st.integers(1, 30).flatmap(orders))
def test_every_bijection_passes(order):
    RETURNED[0] = lambda length: order
    np.testing.assert_array_equal(Order().order(1, len(order)), order)


@given(st.lists(st.integers(-2, 8), min_size=6, max_size=6))
def test_nothing_else_passes(cells):
    RETURNED[0] = lambda length: np.array(cells)
    if sorted(cells) == list(range(6)):
        Order().order(2, 3)
    else:
        with pytest.raises(PluginError):
            Order().order(2, 3)


@pytest.mark.parametrize("ratio", [-1e-9, 1.0 + 1e-9, math.nan, math.inf, None, "0.5"])
@pytest.mark.parametrize("total", [1, 2, 999, 10_001, 250_000])
def test_ratios_are_checked_over_the_whole_training(returns, ratio, total):
    returns(ratio)
    settings = RECIPE.train.model_copy(update={"steps": total})
    # Of long trainings, evenly spaced steps are checked; this one is among them, as both ends are.
    assert total <= 10_000 or total // 2 in {point * total // 10_000 for point in range(10_001)}
    with pytest.raises(
        PluginError, match=rf"^permutation schedule 'liar' of .* at step {total // 2:,} of {total:,}; a random ratio"
    ):
        plan(RECIPE.model_copy(update={"permutation_schedule": Ratio(), "train": settings}), "memory://nothing")


def test_where_parts_come_from():
    assert origin(rarkit_scan_orders()[0]) == "rarkit 0.1.0 (plugin 'builtin')"
    assert origin(Order) == "tests.registry.test_contract.Order"


Fault = Literal["none", "size", "grid", "model", "fit", "range", "negative", "dtype", "shape", "decode", "channels", "other_size"]


@final
class Pixels(Tokenizer):
    """Each pixel is a token, but for the fault."""

    name: Literal["pixels"] = "pixels"
    fault: Fault = "none"
    """What is wrong."""

    @property
    def learns(self):
        return self.fault == "fit"

    def fit(self, reader, seed):
        return {"words": np.array(["a"])}

    def codebook_size(self):
        return 256.0 if self.fault == "size" else 256

    def grid(self, info):
        return [info.height, info.width] if self.fault == "grid" else (info.height, info.width)

    def build(self, state, device):
        return None if self.fault == "model" else PixelsModel(self.fault)


@final
class PixelsModel(TokenizerModel):
    def __init__(self, fault):
        self.fault = fault

    def encode(self, images_BHWC):
        codes = images_BHWC[..., 0].long() + {"range": 1, "negative": -1}.get(self.fault, 0)
        return {"dtype": codes.int(), "shape": codes.flatten(1)}.get(self.fault, codes)

    def decode(self, codes_BHW):
        images = codes_BHW.byte()[..., None]
        wrong = {"decode": images.float(), "channels": images.expand(-1, -1, -1, 3), "other_size": images[:, 1:]}
        return wrong.get(self.fault, images)


TOKENIZERS = {
    "size": r"has a codebook of 256\.0 codes",
    "grid": r"gives images of 8×8 the grid \[8, 8\]",
    "model": "builds NoneType",
    "fit": "learns 'words', which is an array of <U1",
    "range": "encodes to codes from 1 to 256; with 256 codes they must be from 0 to 255",
    "negative": "encodes to codes from -1 to 254",
    "dtype": r"encodes to torch\.int32",
    "shape": r"encodes to torch\.int64 \(\d+, 64\); it must be a tensor of int64 \(\d+, 8, 8\)",
    "decode": r"decodes to torch\.float32",
    "channels": r"decodes to images \(2, 8, 8, 3\); those of the dataset would be \(2, 8, 8, 1\)",
    "other_size": r"decodes codes of a grid of \(8, 8\) to images of \(7, 8, 1\)",
}


@pytest.mark.parametrize("fault", TOKENIZERS)
def test_tokenizers_are_checked_before_training(tmp_path, fault):
    recipe = RECIPE.model_copy(update={"tokenizer": Pixels(fault=fault), "dataset": Pictures()})
    with pytest.raises(PluginError, match=rf"^tokenizer 'pixels' of tests\.registry\.test_contract\.Pixels {TOKENIZERS[fault]}"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True, until="train")
    assert not list((tmp_path / "store").glob("train/*"))


@final
class Pictures(Dataset):
    """Black and white, but for the fault."""

    name: Literal["pictures"] = "pictures"
    fault: Literal["none", "info", "channels", "splits", "reader", "label", "negative", "int32", "size", "floats"] = "none"
    """What is wrong."""

    def info(self):
        return None if self.fault == "info" else ImageInfo(8, 8, 2 if self.fault == "channels" else 1, ("a", "b", "c"))

    def splits(self):
        return ("test",) if self.fault == "splits" else ("train",)

    def open(self, split):
        return [] if self.fault == "reader" else PicturesReader(self.fault)


@final
class PicturesReader(ImageReader):
    def __init__(self, fault):
        self.fault = fault

    def __len__(self):
        return 20

    def blocks(self, start, stop, rows):
        for first in range(start, stop, rows):
            count = min(rows, stop - first)
            images = np.full((count, 9 if self.fault == "size" else 8, 8, 1), 255 * (first % 2), dtype=np.uint8)
            images[:, ::2] = 255
            images[:, 1::2] = 0
            labels = np.full(count, {"label": 3, "negative": -1}.get(self.fault, 0))
            yield ImageBlock(
                images.astype(np.float32) if self.fault == "floats" else images,
                labels.astype(np.int32) if self.fault == "int32" else labels,
            )


DATASETS = {
    "info": "returns NoneType from info",
    "channels": "has images of 8 × 8 × 2 in 3 classes",
    "splits": r"has the splits \('test',\)",
    "reader": "opens list",
    "label": "reads an image with the label 3; its 3 classes are 0 to 2",
    "negative": "reads an image with the label -1",
    "int32": "reads labels of int32",
    "size": r"reads images of \(9, 8, 1\); by its info they are 8 × 8 × 1",
}


@pytest.mark.parametrize("fault", DATASETS)
def test_datasets_are_checked_before_training(tmp_path, fault):
    recipe = RECIPE.model_copy(update={"dataset": Pictures(fault=fault), "tokenizer": Pixels()})
    with pytest.raises(PluginError, match=rf"^dataset 'pictures' of tests\.registry\.test_contract\.Pictures {DATASETS[fault]}"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True, until="train")
    assert not list((tmp_path / "store").glob("train/*"))


def test_checked_readers_hand_on_all_that_readers_may_override():
    open_methods = {name for name, method in vars(ImageReader).items() if callable(method) and not hasattr(method, "__final__")}
    assert {name for name in open_methods if not name.startswith("__") or name == "__len__"} <= set(vars(CheckedReader))
    reader = Pictures(fault="label").open("train")
    with pytest.raises(PluginError, match="label 3"):
        next(reader.chosen(np.array([3]), 1))


def test_images_of_another_dtype_are_no_images():
    with pytest.raises(DatasetError, match=r"images of float32 \(20, 8, 8, 1\).*must be uint8"):
        Pictures(fault="floats").open("train").read()


def test_honest_parts_pass(tmp_path):
    recipe = RECIPE.model_copy(update={"dataset": Pictures(), "tokenizer": Pixels()})
    run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True, until="tokenize")


@final
class Seen(FeatureExtractor):
    """The pixels, but for the fault."""

    name: Literal["seen"] = "seen"
    fault: Literal["none", "model", "type", "dtype", "rows", "nan", "width"] = "none"
    """What is wrong."""

    def build(self, state, device):
        return 3 if self.fault == "model" else SeenModel(self.fault)


@final
class SeenModel(FeatureModel):
    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def __call__(self, images_BHWC):
        self.calls += 1
        seen = images_BHWC.flatten(1).float()
        wrong = {"dtype": seen.double(), "rows": seen[1:], "nan": seen / 0, "width": seen[:, self.calls :]}
        return seen if self.fault == "type" else Features(wrong.get(self.fault, seen))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("model", "builds int"),
        ("type", "returns Tensor; it must return Features"),
        ("dtype", r"returns features of torch\.float64 \(2, 12\) for 2 images"),
        ("rows", r"returns features of torch\.float32 \(1, 12\) for 2 images"),
        ("nan", "returns features that are not finite"),
        (
            "width",
            r"returns features, .* of widths \(10, None, None\); in the batch before they were \(11,",
        ),
    ],
)
def test_feature_extractors_are_checked(fault, message):
    def two_batches(part):
        model = part.build({}, "cpu")
        return [model(torch.zeros(2, 2, 2, 3, dtype=torch.uint8)) for _ in range(2)]

    two_batches(Seen())
    with pytest.raises(PluginError, match=f"^feature extractor 'seen' of .*Seen {message}"):
        two_batches(Seen(fault=fault))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (lambda q, k, v, **_: q[:, :, 1:], r"returns torch\.float32 \(1, 2, 2, 4\) for queries in torch\.float32 \(1, 2, 3, 4\)"),
        (lambda q, k, v, **_: q.double(), r"returns torch\.float64 \(1, 2, 3, 4\)"),
    ],
)
def test_attention_is_checked(kernel, message):
    q = torch.randn(1, 2, 3, 4)
    assert attend(plain_attention, q, q, q, causal=True).shape == q.shape
    with pytest.raises(PluginError, match=f"the attention function .*lambda> {message}"):
        attend(kernel, q, q, q, causal=True)
    model = RAR(TINY, kernel).eval()
    with pytest.raises(PluginError, match="the attention function"):
        model(torch.zeros(1, 12, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), torch.arange(12))


@final
class Sizes(ModelFamily):
    """A RAR of other sizes than asked for."""

    name: Literal["sizes"] = "sizes"
    setting: str
    """The size that is wrong."""

    def config(self, *, grid, codebook_size, num_classes):
        family = RARFamily(hidden_size=8, depth=1, num_heads=1)
        config = family.config(grid=grid, codebook_size=codebook_size, num_classes=num_classes)
        return config.model_copy(update={self.setting: getattr(config, self.setting) + 1})

    def costs(self, config):
        raise NotImplementedError

    def create(self, config, attention, seed):
        raise NotImplementedError

    def restore(self, config, attention, tensors):
        raise NotImplementedError

    def load(self, path, config, attention, *, device, dtype):
        raise NotImplementedError

    @property
    def dropped(self):
        return {}


@pytest.mark.parametrize("setting", ["seq_len", "codebook_size", "num_classes"])
def test_model_families_are_checked_when_a_recipe_is_planned(setting):
    with pytest.raises(
        PluginError, match=rf"^model family 'sizes' of .*Sizes has {setting} = \d+ in its config; .* it must be \d+"
    ):
        plan(RECIPE.model_copy(update={"model": Sizes(setting=setting)}), "memory://nothing")


def test_logits_of_more_codes_are_refused_at_the_first_step():
    model = RAR(TINY)
    model.lm_head = torch.nn.Linear(32, 21)
    settings = RECIPE.train
    task = NextToken(
        model,
        Rows(np.zeros((9, 12))),
        Rows(np.zeros(9)),
        settings,
        seed=0,
        scan_order_L=np.arange(12),
        schedule=RECIPE.permutation_schedule or RECIPE.model.default_schedule(),
    )
    trainer = Trainer(task, settings, seed=0, device="cpu", degrees=degrees(settings, 1))
    with pytest.raises(PluginError, match=r"rarkit 0\.1\.0 .* returns logits \(4, 12, 21\); they must be \(4, 12, 20\)"):
        trainer.advance()


@final
class Rows:
    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def rows(self, numbers):
        return self.values[numbers]


@final
class Doubles:
    """A decoder of float64."""

    def __init__(self, *arguments):
        self.decoder = PlainDecoder(*arguments)

    def logits(self, step, previous_B):
        return self.decoder.logits(step, previous_B).double()


def test_decoders_are_checked():
    with pytest.raises(PluginError, match=r"Doubles returns logits of torch\.float64 \(1, 20\) at step 0; they must be float32"):
        generate(RAR(TINY), [0], order=range(12), decoder=Doubles)
