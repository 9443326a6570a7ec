"""rarkit.load: what it gives is what the run has, from a run, its folder, a bundle and a checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import rarkit
from rarkit.cli import main
from rarkit.errors import CapabilityError, GridError, IncompleteError, RecipeError, UserError, WeightsError
from rarkit.files.weights import read_tensors, write_tensors
from rarkit.inference.export import export_bundle, export_tokenizer
from rarkit.models import PRESETS, RAR, MergedRAR, RARConfig, list_models, save_rar
from rarkit.sampling import Constant, Interval
from rarkit.scan_orders.raster import Raster
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.pixel import Pixel


@pytest.fixture(scope="module")
def bundle(finished, tmp_path_factory):
    return export_bundle(finished.folder, tmp_path_factory.mktemp("bundle") / "digits.safetensors")


@pytest.fixture(scope="module")
def pipeline(finished):
    return rarkit.load(finished, device="cpu")


@pytest.fixture(scope="module")
def held_out(finished):
    block = finished.plan.recipe.dataset.open("test").read()
    return block.images_NHWC, block.labels_N


def drawn(source, **options):
    return rarkit.sample(source, [3, "7"], 2, device="cpu", quiet=True, **options)


def drawn_of(source, classes):
    return rarkit.sample(source, classes, 1, device="cpu", quiet=True)


def assert_same_bits(pipelines, images_NHWC, labels_N):
    first, *others = pipelines
    for other in others:
        for name, weight in first.model.state_dict().items():
            assert torch.equal(weight, other.model.state_dict()[name]), name
        np.testing.assert_array_equal(first.sample([1, 2], 2).images_NHWC, other.sample([1, 2], 2).images_NHWC)
        np.testing.assert_array_equal(first.log_likelihood(images_NHWC, labels_N), other.log_likelihood(images_NHWC, labels_N))
        assert (first.class_names, first.grid, first.settings) == (other.class_names, other.grid, other.settings)
        np.testing.assert_array_equal(first.order, other.order)


def test_a_run_its_folder_and_a_bundle_are_one(pipeline, finished, bundle, held_out):
    images_NHWC, labels_N = held_out[0][:9], held_out[1][:9]
    assert_same_bits([pipeline, *(rarkit.load(place, device="cpu") for place in (finished.folder, bundle))], images_NHWC, labels_N)
    assert (pipeline.device, pipeline.dtype) == (torch.device("cpu"), torch.float32)
    assert (pipeline.scan_order.name, pipeline.class_names) == ("raster", tuple("0123456789"))
    assert repr(pipeline) == "<Pipeline: rar, 4 × 4 tokens, 10 classes, float32 on cpu>"


def test_there_is_one_way_to_draw(pipeline, finished, bundle):
    for drawing in (drawn(finished), drawn(finished.folder), drawn(bundle), pipeline.sample([3, "7"], 2)):
        np.testing.assert_array_equal(drawing.images_NHWC, drawn(finished.folder).images_NHWC)
    guided = drawn(finished.folder, guidance_scale=3.0, guidance_power=1.0, scan_order="spiral", temperature=0.5)
    schedule = finished.plan.recipe.sample.guidance.model_copy(update={"scale": 3.0})
    for order in ("spiral", guided.order_L, rarkit.parts().scan_orders["spiral"]()):
        other = pipeline.sample([3, "7"], 2, guidance=schedule, order=order, temperature=0.5)
        np.testing.assert_array_equal(guided.tokens_NL, other.tokens_NL)
    assert pipeline.sample(3, 1, order=guided.order_L).scan_order == {}
    constant = pipeline.sample("3", 1, guidance=4)
    assert constant.settings.guidance == Constant(scale=4.0)
    np.testing.assert_array_equal(constant.tokens_NL, pipeline.sample(3, 1, guidance=Interval(scale=4.0)).tokens_NL)
    assert [(image.mode, image.size) for image in constant.images] == [("L", (8, 8))]
    np.testing.assert_array_equal(np.asarray(constant.images[0]), constant.images_NHWC[0, ..., 0])


def test_the_model_is_laid_out_once(pipeline, monkeypatch):
    pipeline.sample(3, 1)
    monkeypatch.setattr(RAR, "prepare", None)
    pipeline.sample(4, 1, temperature=2.0)


def test_likelihood_is_that_of_the_evaluation(pipeline, finished, held_out):
    measured = next(metric.value for metric in finished.metrics if metric.name == "bits_per_token")
    nats_N = pipeline.log_likelihood(*held_out)
    assert -nats_N.mean() / len(pipeline.order) / math.log(2) == pytest.approx(measured, rel=1e-12)
    # The sum, over the steps, of the log-probability of the token that comes next.
    images_NHWC, labels_N = held_out[0][:5], held_out[1][:5]
    for order in (None, "spiral"):
        order_L = torch.from_numpy(pipeline.order if order is None else rarkit.parts().scan_orders[order]().order(4, 4))
        logits_NLV = torch.from_numpy(pipeline.logits(pipeline.encode(images_NHWC), labels_N, order))
        next_NL = torch.from_numpy(pipeline.encode(images_NHWC)).flatten(1)[:, order_L]
        nats_NL = functional.cross_entropy(logits_NLV.transpose(1, 2), next_NL, reduction="none")
        np.testing.assert_allclose(pipeline.log_likelihood(images_NHWC, labels_N, order), -nats_NL.sum(1), rtol=1e-6)


def test_images_tokens_and_labels_come_in_many_forms(pipeline, held_out):
    images_NHWC, labels_N = held_out[0][:4], held_out[1][:4]
    pictures = [Image.fromarray(image[..., 0]) for image in images_NHWC]
    codes_NHW = pipeline.encode(images_NHWC)
    assert (codes_NHW.shape, codes_NHW.dtype) == ((4, 4, 4), np.int64)
    np.testing.assert_array_equal(pipeline.encode(pictures), codes_NHW)
    np.testing.assert_array_equal(pipeline.encode(torch.from_numpy(images_NHWC)), codes_NHW)
    np.testing.assert_array_equal(pipeline.encode(pictures[2]), codes_NHW[2:3])
    # torch takes no view of negative strides, of a single image either.
    np.testing.assert_array_equal(
        pipeline.encode(images_NHWC[:, ::-1, ::-1][::-1][:1]), pipeline.encode(images_NHWC[3:, ::-1, ::-1].copy())
    )
    decoded = pipeline.decode(codes_NHW)
    assert (decoded.shape, decoded.dtype) == (images_NHWC.shape, np.uint8)
    for tokens in (codes_NHW.reshape(4, -1), torch.from_numpy(codes_NHW).int(), codes_NHW.tolist()):
        np.testing.assert_array_equal(pipeline.decode(tokens), decoded)
    by_label = pipeline.logits(codes_NHW, labels_N)
    assert (by_label.shape, by_label.dtype) == ((4, 16, pipeline.model.config.codebook_size), np.float32)
    for labels in (labels_N.tolist(), torch.from_numpy(labels_N), [pipeline.class_names[label] for label in labels_N]):
        np.testing.assert_array_equal(pipeline.logits(codes_NHW, labels), by_label)
    np.testing.assert_array_equal(pipeline.log_likelihood(pictures, "5"), pipeline.log_likelihood(images_NHWC, [5] * 4))
    empty = images_NHWC[:0]
    assert pipeline.decode(pipeline.encode(empty)).shape == (0, 8, 8, 1)
    assert pipeline.log_likelihood(empty, []).shape == (0,)


def test_what_is_not_what_it_must_be_is_refused(pipeline, held_out):
    images, labels = held_out[0][:2], held_out[1][:2]
    tokens = pipeline.encode(images)
    wrong = [
        (lambda: pipeline.encode(images / 255), UserError, r"are float64 .* pass uint8 of 0 to 255 with shape \(N, 8, 8, 1\)"),
        (lambda: pipeline.encode(images[0]), UserError, r"the images are uint8 \(8, 8, 1\)"),
        (lambda: pipeline.encode(images[:, :4]), UserError, "are 4×8 with 1 channels, but the model's are 8×8 with 1"),
        (lambda: pipeline.encode(Image.new("RGB", (8, 8))), UserError, r"mode 'RGB', .* pass image\.convert\('L'\)"),
        (lambda: pipeline.encode(Image.new("L", (9, 8))), UserError, "is 8×9, but the model's are 8×8"),
        (lambda: pipeline.encode(["a.png"]), UserError, "or Pillow images"),
        (lambda: pipeline.decode(tokens + 1000), UserError, r"token 1\d\d\d is not one of the model's codes, 0 to"),
        (lambda: pipeline.decode(-1 - tokens), UserError, "is not one of the model's codes"),
        (lambda: pipeline.decode(tokens[:, :2]), UserError, r"are int64 \(2, 2, 4\); pass whole numbers with shape \(N, 16\) or"),
        (lambda: pipeline.decode(tokens * 1.0), UserError, "the tokens are float64"),
        (lambda: pipeline.logits(tokens, [1]), UserError, r"there are 2 images, but labels int64 \(1,\)"),
        (lambda: pipeline.logits(tokens, [1, 10]), UserError, "label 10 is not one of the model's classes, 0 to 9"),
        (lambda: pipeline.logits(tokens, [1, -1]), UserError, "label -1 is not"),
        (lambda: pipeline.logits(tokens, [1.0, 2.0]), UserError, "labels float64"),
        (lambda: pipeline.logits(tokens, ["1", "ten"]), UserError, "no class is called 'ten'"),
        (lambda: pipeline.logits(tokens, labels, "spirall"), UserError, "did you mean 'spiral'"),
        (lambda: pipeline.logits(tokens, labels, np.zeros(16, int)), GridError, "does not visit each of the 16 cells exactly once"),
        (lambda: pipeline.sample(3, order=np.arange(9)), GridError, r"the order is int64 \(9,\)"),
        (lambda: pipeline.sample(3, order=np.arange(16.0)), GridError, r"the order is float64 \(16,\); pass a scan order"),
        (lambda: pipeline.sample(3, order=Raster), UserError, r"the order is the class Raster; pass a scan order: Raster\(\)"),
        (lambda: pipeline.sample(3, order=Raster().order), GridError, "the order is <bound method"),
        (lambda: pipeline.sample(3, seed="a"), UserError, "the seed is 'a'; it must be a whole number"),
        (lambda: pipeline.sample(3, 2.5), UserError, r"there cannot be 2\.5 images"),
        (lambda: pipeline.sample([3, 3]), UserError, "named twice"),
        (lambda: pipeline.sample(3, 0), UserError, "there cannot be 0 images"),
        (lambda: pipeline.sample(3, guidance="strong"), UserError, "guidance is 'strong'; pass a number from 0"),
        (lambda: pipeline.sample(3, guidance=-1), UserError, "guidance is -1"),
        (lambda: pipeline.sample(3, temprature=2), UserError, "did you mean 'temperature'"),
        (lambda: pipeline.save(None), UserError, "path is None; pass the path of a file"),
        (lambda: pipeline.sample(3, precision="bfloat16"), UserError, r"decided when the model is loaded: rarkit\.load"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


def test_what_is_no_place_of_a_model_is_named(finished):
    for place in (finished.plan, finished.plan.recipe, None, 3):
        with pytest.raises(UserError, match=r"found .* where a trained model is needed\. Give what rarkit\.run returns, "):
            rarkit.load(place)


@pytest.mark.parametrize("classes", [[], (), 3.0, [3.0], True, {3: 2}, [[3]], np.array([]), np.array(3.0), torch.tensor([3.0])])
def test_what_names_no_class_is_not_taken_for_all_of_them(pipeline, finished, classes):
    for sample in (pipeline.sample, partial(drawn_of, finished)):
        with pytest.raises(UserError, match=r"the classes are .*; pass labels or names, or None for 10 classes"):
            sample(classes)


@pytest.mark.parametrize("classes", ["3", 3, np.int64(3), np.array(3), np.array([3]), torch.tensor([3]), {3}, range(3, 4)])
def test_classes_come_as_people_have_them(pipeline, finished, classes):
    for sample in (pipeline.sample, partial(drawn_of, finished)):
        assert sample(classes).classes == (3,)


def test_precision_and_order_are_chosen_at_loading(finished, bundle, tmp_path, held_out):
    chosen = [rarkit.load(place, precision="bfloat16", scan_order="spiral", device="cpu") for place in (finished.folder, bundle)]
    assert chosen[0].dtype == torch.bfloat16
    saved = rarkit.load(chosen[0].save(tmp_path / "saved.safetensors"), device="cpu")
    assert_same_bits([*chosen, saved], held_out[0][:3], held_out[1][:3])
    assert saved.scan_order.name == "spiral"
    # The bundle of a run has the weights that the run has.
    assert rarkit.load(bundle, device="cpu").dtype == torch.float32
    with pytest.raises(UserError, match="precision: found 'float8'"):
        rarkit.load(bundle, precision="float8")


def test_a_bundle_is_one_file_of_numbers(bundle, tmp_path, monkeypatch, capsys, finished):
    again = tmp_path / "again.safetensors"
    monkeypatch.setattr("sys.argv", ["rarkit", "export", str(finished.folder), "--bundle", str(again)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().out) == (0, f"{again}\n")
    with open(bundle, "rb") as file:
        assert file.read() == again.read_bytes()
    tensors, metadata = read_tensors(again)
    assert {name.partition(".")[0] for name in tensors} == {"model", "tokenizer"}
    assert list(metadata) == ["bundle"]
    # Whose folders the run lay in is nobody's business.
    assert str(finished.folder.parent) not in metadata["bundle"]
    assert json.loads(metadata["bundle"])["images"]["class_names"] == list("0123456789")
    for more in (["--merged"], ["-o", "x.safetensors"], ["--to", "transformers"]):
        monkeypatch.setattr("sys.argv", ["rarkit", "export", str(finished.folder), "--bundle", str(again), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code, "leave out --to, --output and --merged" in capsys.readouterr().err) == (2, True)
    with pytest.raises(WeightsError, match=r"has to end in \.safetensors"):
        export_bundle(finished.folder, tmp_path / "digits.zip")
    for options in ({"store": "there"}, {"tokenizer": "there"}):
        with pytest.raises(UserError, match=r"is a bundle, which .* leave out"):
            rarkit.load(bundle, **options)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_bundle_whose_numbers_are_others_is_refused(finished, precision, tmp_path):
    whole = tmp_path / "whole.safetensors"
    rarkit.load(finished.folder, precision=precision, device="cpu").save(whole)
    tensors, metadata = read_tensors(whole)
    assert {str(tensor.dtype) for name, tensor in tensors.items() if name.startswith("model.")} == {f"torch.{precision}"}
    for part in ("model.", "tokenizer."):
        name = next(name for name in tensors if name.startswith(part))
        changed = tensors[name].clone()
        changed.view(-1)[0] += 1
        write_tensors({**tensors, name: changed}, tmp_path / "other.safetensors", metadata)
        for use in (rarkit.load, lambda place: export_tokenizer(place, tmp_path / "tokenizer.safetensors")):
            with pytest.raises(WeightsError, match=r"other\.safetensors is damaged \(its arrays are not those that were written\)"):
                use(tmp_path / "other.safetensors")
    strange = {name: tensor.bfloat16() if name.startswith("tokenizer.") else tensor for name, tensor in tensors.items()}
    write_tensors(strange, tmp_path / "other.safetensors", metadata)
    with pytest.raises(WeightsError, match=r"array 'codebook' is of torch\.bfloat16, which no tokenizer learns"):
        rarkit.load(tmp_path / "other.safetensors")
    without = {key: value for key, value in json.loads(metadata["bundle"]).items() if key != "digest"}
    write_tensors(tensors, tmp_path / "other.safetensors", {"bundle": json.dumps(without)})
    with pytest.raises(WeightsError, match=r"is damaged \(digest: Field required\)\. Export it again"):
        rarkit.load(tmp_path / "other.safetensors")


def test_a_run_is_what_it_made_itself(small_recipe, tmp_path):
    """Two runs under one name: the folder shows the last, each run is its own."""
    recipes = [rarkit.load_recipe(small_recipe, [f"seed={seed}", "train.steps=2"], unset=["evaluate"]) for seed in (1, 2)]
    store, runs = str(tmp_path / "store"), tmp_path / "runs"
    first = rarkit.run(recipes[0], store, device="cpu", runs=runs, quiet=True)
    before = rarkit.load(first, device="cpu").model.state_dict()
    second = rarkit.run(recipes[1], store, device="cpu", runs=tmp_path / "others", quiet=True)
    shutil.rmtree(first.folder)
    shutil.copytree(second.folder, first.folder)
    after = rarkit.load(first, device="cpu").model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    of_the_folder = rarkit.load(first.folder, device="cpu").model.state_dict()
    assert any(not torch.equal(before[name], of_the_folder[name]) for name in before)
    with pytest.raises(UserError, match=r"the run .* needs no store: leave out --store"):
        rarkit.load(first, store=store)
    first.plan.store.remove(first.plan["train"].output)
    first.plan["train"].output.refresh()
    with pytest.raises(IncompleteError, match="the output of stage 'train'"):
        rarkit.load(first)


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A checkpoint of a RAR-B of width 32, and a small tokenizer for it."""
    small = RARConfig(hidden_size=32, depth=1, num_heads=2, mlp_hidden_size=32, seq_len=256, codebook_size=1024, num_classes=1000)
    monkeypatch.setitem(PRESETS, "rar_b", small)
    sizes = {"hidden_channels": 32, "channel_mult": (1, 1, 1, 1, 1), "num_res_blocks": 1, "z_channels": 32}
    save_rar(RAR(small, seed=0), tmp_path / "rar_b.bin")
    torch.save(MaskGITVQGAN(weights=None, **sizes).network().state_dict(), tmp_path / "vqgan.pt")
    return tmp_path / "rar_b.bin", MaskGITVQGAN(weights=str(tmp_path / "vqgan.pt"), **sizes)


def test_a_checkpoint_takes_its_tokenizer_and_becomes_a_bundle(released, tmp_path):
    weights, tokenizer = released
    loaded = rarkit.load(weights, preset="rar_b", tokenizer=tokenizer, device="cpu")
    path = loaded.save(tmp_path / "bundle.safetensors")
    weights.unlink()
    (tmp_path / "vqgan.pt").unlink()
    bundled = rarkit.load(path, device="cpu")
    tokens = np.random.default_rng(0).integers(0, 1024, (1, 256))
    np.testing.assert_array_equal(bundled.decode(tokens), loaded.decode(tokens))
    np.testing.assert_array_equal(bundled.logits(tokens, 207), loaded.logits(tokens, "golden retriever"))
    assert bundled.class_names[207] == "golden retriever"
    with pytest.raises(UserError, match="give --preset"):
        rarkit.load(tmp_path / "other.bin")
    with pytest.raises(GridError, match="greyscale"):
        rarkit.load(weights, preset="rar_b", tokenizer=Pixel())
    assert list_models() == ["rar_b", "rar_l", "rar_xl", "rar_xxl"]
    assert list_models("*_x*") == ["rar_xl", "rar_xxl"]


def test_a_merged_model_stays_merged_in_a_bundle(released, tmp_path):
    _, tokenizer = released
    merged = tmp_path / "merged.safetensors"
    save_rar(RAR(PRESETS["rar_b"], seed=0).merge_positions(torch.arange(256)), merged)
    loaded = rarkit.load(merged, preset="rar_b", tokenizer=tokenizer, device="cpu")
    bundled = rarkit.load(loaded.save(tmp_path / "bundle.safetensors"), device="cpu")
    assert isinstance(bundled.model, MergedRAR)
    tokens = np.zeros((1, 256), int)
    np.testing.assert_array_equal(bundled.logits(tokens, 1), loaded.logits(tokens, 1))


def test_a_tokenizer_that_needs_its_file_cannot_be_bundled(released, tmp_path, monkeypatch):
    weights, tokenizer = released
    loaded = rarkit.load(weights, preset="rar_b", tokenizer=tokenizer, device="cpu")
    monkeypatch.setattr(MaskGITVQGAN, "without_files", Tokenizer.without_files)
    with pytest.raises(CapabilityError, match=r"'maskgit_vqgan' .* reads .*vqgan\.pt, which cannot be in a bundle"):
        loaded.save(tmp_path / "bundle.safetensors")


def test_what_is_none_of_them(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere is not a run: there is no such folder\. rarkit run leaves one"):
        rarkit.load(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"there is no file .*nowhere\.safetensors"):
        rarkit.load(tmp_path / "nowhere.safetensors")
