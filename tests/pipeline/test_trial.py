"""Parts whose files or decoders cannot serve are found before the first stage, and files by the plan."""

from __future__ import annotations

from typing import Literal, final

import numpy as np
import pytest
import torch

from rarkit import Tokenizer, TokenizerModel, load_recipe, plan, run
from rarkit.errors import GridError, PluginError, WeightsError
from rarkit.estimate.estimate import estimate
from rarkit.features.classifier import Classifier
from rarkit.files.weights import write_tensors
from rarkit.images import ImageInfo
from rarkit.models.rar.checkpoints import save_rar
from rarkit.models.rar.rar import RAR
from rarkit.pipeline.trial import unfit_weights
from rarkit.recipe.experiment import resolve
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from tests.models.rar.small import TINY
from tests.rules import ROOT

# Parts without a plugin are not in the unions of the recipe's fields.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
QUICK = ["train.steps=2", "train.warmup_steps=0", "train.batch_size=4", "sample.per_class=1", "model.depth=1"]
NARROW = {"hidden_channels": 32, "channel_mult": (1, 1, 1), "num_res_blocks": 1, "z_channels": 8, "codes": 32}


def stages_begun(store):
    return sorted({path.parent.name for path in store.glob("*/*")} - {"receipts"})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_feature_weights_of_another_network_are_found_before_the_first_stage(tmp_path, suffix):
    weights = tmp_path / f"inception{suffix}"
    write_tensors({"features.0.weight": torch.zeros(64, 3, 11, 11)}, weights, {})
    features = f'evaluate.features={{ name = "inception", weights = "{weights}" }}'
    recipe = load_recipe(str(ROOT / "recipes/digits.toml"), [*QUICK, features])
    message = rf"^{weights} does not fit the Inception network: missing: .*unexpected: features\.0\.weight\. Is it pt_inception"
    with pytest.raises(WeightsError, match=message):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert not stages_begun(tmp_path / "store")
    assert "does not fit the Inception network" in estimate(plan(recipe, str(tmp_path / "store"))).missing["evaluate.features"]


def test_tokenizer_and_model_weights_of_another_network_are_in_the_plan(tmp_path):
    tokenizer, model = tmp_path / "vqgan.safetensors", tmp_path / "model.safetensors"
    write_tensors({"decoder.conv.weight": torch.zeros(3)}, tokenizer, {})
    save_rar(RAR(TINY), model)
    sizes = "hidden_channels = 32, channel_mult = [1, 1, 1], num_res_blocks = 1, z_channels = 8, codes = 32"
    recipe = load_recipe(
        str(ROOT / "recipes/digits.toml"),
        [
            *QUICK[3:],
            'dataset={ name = "generated", height = 8, width = 8, channels = 3 }',
            f'tokenizer={{ name = "maskgit_vqgan", weights = "{tokenizer}", {sizes} }}',
            f'model.weights="{model}"',
        ],
        unset=["train", "permutation_schedule"],
    )
    planned = plan(recipe, str(tmp_path / "store"))
    assert list(unfit_weights(planned)) == ["model", "tokenizer"]
    missing = estimate(planned).missing
    assert f"{model} does not fit the model: it has " in missing["model"]
    assert f"{tokenizer} does not fit the tokenizer: missing: " in missing["tokenizer"]
    with pytest.raises(WeightsError, match="does not fit the model"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert not stages_begun(tmp_path / "store")


@final
class Shades(Tokenizer):
    """Each pixel is a token, but for the fault of the decoder."""

    name: Literal["shades"] = "shades"
    fault: Literal["none", "float", "height", "channels", "count", "unit", "list"] = "none"
    """What is wrong."""
    learned: bool = False
    """Whether it learns first."""

    @property
    def learns(self):
        return self.learned

    def fit(self, reader, seed):
        return {"nothing": np.zeros(1)}

    def codebook_size(self):
        return 256

    def grid(self, info):
        return info.height, info.width

    def build(self, state, device):
        return ShadesModel(self.fault)


@final
class ShadesModel(TokenizerModel):
    def __init__(self, fault):
        self.fault = fault

    def encode(self, images_BHWC):
        return images_BHWC[..., 0].long()

    def decode(self, codes_BHW):
        images = codes_BHW.byte()[..., None]
        wrong = {
            "float": images / 255,
            "height": images[:, 1:],
            "channels": images.expand(-1, -1, -1, 3),
            "count": images[1:],
            "unit": images // 255,
            "list": images.tolist(),
        }
        return wrong.get(self.fault, images)


FAULTS = {
    "float": r"decodes to torch\.float32 \(2, 8, 8, 1\); it must be a tensor of uint8",
    "height": r"decodes codes of a grid of \(8, 8\) to images of \(7, 8, 1\)",
    "channels": r"decodes to images \(2, 8, 8, 3\); those of the dataset would be \(2, 8, 8, 1\)",
    "count": r"decodes to torch\.uint8 \(1, 8, 8, 1\); it must be a tensor of uint8 \(2, 8, 8, 1\)",
    "unit": "decodes whatever code to black; levels must be from 0 to 255, not from 0 to 1",
    "list": "decodes to list",
}


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_decoders_are_tried_before_the_first_stage_or_at_the_end_of_fit(tmp_path, fault, learned):
    """Without yardsticks and with imported tokens, no stage before sampling would decode."""
    recipe = load_recipe(str(ROOT / "recipes/digits.toml"), QUICK)
    recipe = recipe.model_copy(update={"tokenizer": Shades(fault=fault, learned=learned)})
    with pytest.raises(PluginError, match=rf"^tokenizer 'shades' of tests\.pipeline\.test_trial\.Shades {FAULTS[fault]}"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert stages_begun(tmp_path / "store") == (["fit"] if learned else [])


def test_a_decoder_that_broke_after_its_fit_is_tried_again(tmp_path, monkeypatch):
    recipe = load_recipe(str(ROOT / "recipes/digits.toml"), QUICK).model_copy(update={"tokenizer": Shades(learned=True)})
    places = {"device": "cpu", "runs": tmp_path / "runs", "quiet": True}
    run(recipe, str(tmp_path / "store"), **places, until="fit")
    # The plugin was updated, and its version was not raised.
    monkeypatch.setattr(Shades, "build", lambda self, state, device: ShadesModel("channels"))
    with pytest.raises(PluginError, match="decodes to images"):
        run(recipe, str(tmp_path / "store"), **places)
    assert stages_begun(tmp_path / "store") == ["fit"]


@pytest.mark.parametrize(
    ("name", "message"), [("decoder.conv_out.bias", "decodes codes"), ("encoder.conv_out.bias", "encodes images")]
)
def test_weights_with_nan_are_told_and_not_drawn(tmp_path, name, message):
    path = tmp_path / "vqgan.safetensors"
    tensors = MaskGITVQGAN(weights=None, **NARROW).network().state_dict()
    write_tensors({**tensors, name: torch.full_like(tensors[name], torch.nan)}, path, {})
    part, info = MaskGITVQGAN(weights=str(path), **NARROW), ImageInfo(8, 8, 3, ("a", "b"))
    model = part.build({}, "cpu")
    uses = {
        "decodes codes": lambda: part.check_decoding(model, part.grid(info), info),
        "encodes images": lambda: model.encode(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)),
    }
    with pytest.raises(WeightsError, match=f"{message} to numbers that are not finite"):
        uses[message]()


def test_weights_in_half_precision_serve(tmp_path):
    path = tmp_path / "vqgan.safetensors"
    tensors = MaskGITVQGAN(weights=None, **NARROW).network().state_dict()
    write_tensors({name: values.half() for name, values in tensors.items()}, path, {})
    part, info = MaskGITVQGAN(weights=str(path), **NARROW), ImageInfo(8, 8, 3, ("a", "b"))
    part.check_decoding(part.build({}, "cpu"), part.grid(info), info)


def test_one_class_is_too_few_for_the_classifier_and_known_when_a_recipe_is_resolved():
    with pytest.raises(GridError, match="needs images of two classes or more, but this dataset has one, 'all'"):
        Classifier().check_images(ImageInfo(8, 8, 1, ("all",)))
    recipe = load_recipe(str(ROOT / "recipes/digits.toml"))
    with pytest.raises(GridError, match="two classes or more"):
        resolve(recipe, ImageInfo(8, 8, 1, ("all",)), ("train",))
