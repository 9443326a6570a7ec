"""Numbers of a tokenizer by itself: those of the plain functions over all images at once, wherever the tokenizer is from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import rarkit
from rarkit.errors import GridError, RecipeError, UserError, WeightsError
from rarkit.evaluation import reconstruction
from rarkit.evaluation.codebook_use import codebook_use
from rarkit.evaluation.frechet import frechet_distance
from rarkit.evaluation.reconstruction import psnr, ssim
from rarkit.features.classifier import Classifier
from rarkit.files.weights import write_tensors
from rarkit.inference import tokenizer_evaluation
from rarkit.inference.export import export_tokenizer
from rarkit.inference.tokenizer_evaluation import evaluate_tokenizer
from rarkit.randomness import drawn_rows
from rarkit.stages.base import read_state
from rarkit.tokenizers.exported import write_tokenizer
from rarkit.tokenizers.pixel import Pixel


def evaluated(source, data=None, **options):
    return evaluate_tokenizer(source, data, device="cpu", quiet=True, **options)


def numbers(measured):
    return {metric.name: metric.value for metric in measured.metrics}


@pytest.fixture(scope="module")
def file(small_finished, tmp_path_factory):
    return small_finished.save_tokenizer(tmp_path_factory.mktemp("file") / "small.safetensors")


def plain(run, images_NHWC):
    """The numbers, with all images in memory."""
    recipe, outputs = run.plan.recipe, {result.name: run.plan[result.name].output for result in run.results}
    model = recipe.tokenizer.build(read_state(outputs["fit"]), "cpu")
    codes_NHW = model.encode(torch.from_numpy(images_NHWC))
    decoded_NHWC = model.decode(codes_NHW).numpy()
    extractor = recipe.evaluate.features.build(read_state(outputs["reference"]), "cpu")
    with torch.inference_mode():
        features = [extractor(torch.from_numpy(images)).features_BF.numpy() for images in (images_NHWC, decoded_NHWC)]
    decibels_N, use = psnr(images_NHWC, decoded_NHWC), codebook_use(codes_NHW.numpy(), recipe.tokenizer.codes)
    return {
        "reconstruction_psnr": decibels_N[np.isfinite(decibels_N)].mean(),
        "reconstruction_ssim": ssim(images_NHWC, decoded_NHWC).mean(),
        "reconstruction_frechet_distance": frechet_distance(*features),
        "codebook_use": use.share,
        "codebook_perplexity": use.perplexity,
    }


@pytest.mark.parametrize(("split", "most"), [("test", 1000), ("test", 70), ("train", 65)])
def test_numbers_are_those_of_all_images_at_once(split, most, small_finished, monkeypatch):
    # In pieces that fit neither each other nor the whole.
    monkeypatch.setattr(tokenizer_evaluation, "BATCH", 9)
    monkeypatch.setattr(reconstruction, "COMPARED", 4 * 16)
    recipe = small_finished.plan.recipe
    reader = recipe.dataset.open(split)
    images_NHWC = reader.read().images_NHWC
    rows_N = drawn_rows(recipe.seed, len(images_NHWC), most)
    measured = evaluated(small_finished, split=split, images=most)
    assert numbers(measured) == pytest.approx(plain(small_finished, images_NHWC[rows_N]), rel=1e-5)
    assert (measured.images, measured.images_in_all, measured.split) == (len(rows_N), len(reader), split)
    assert measured.bits_per_image == pytest.approx(4 * math.log2(5))
    assert measured.bits_per_pixel == pytest.approx(4 * math.log2(5) / 16)
    assert (measured.grid, measured.image_shape, measured.codebook_size, measured.lacking) == ((2, 2), (4, 4, 1), 5, ())
    shown_NHWC = measured.originals_NHWC
    assert len(shown_NHWC) == 20
    assert {image.tobytes() for image in shown_NHWC} <= {image.tobytes() for image in images_NHWC[rows_N]}
    assert measured.reconstructions_NHWC.shape == shown_NHWC.shape


def test_a_run_its_folder_a_recipe_a_bundle_and_a_file_are_one(small_finished, small_recipe, file, tmp_path):
    store = str(small_finished.plan.store.url)
    bundle = rarkit.load(small_finished, device="cpu").save(tmp_path / "bundle.safetensors")
    here = evaluated(small_finished, images=80)
    for other in (
        evaluated(small_finished.folder, images=80),
        evaluated(small_recipe, images=80, store=store),
        # Their extractor is trained anew, on the same images and from the same seed.
        evaluated(bundle, small_recipe, images=80),
        evaluated(file, small_recipe, images=80),
    ):
        assert numbers(other) == pytest.approx(numbers(here), rel=1e-6)
        assert (other.dataset, other.split) == (here.dataset, here.split)
    assert evaluated(file, small_recipe, images=5).tokenizer["part"] == here.tokenizer


def test_what_a_run_learned_is_not_learned_again(small_finished, monkeypatch):
    monkeypatch.setattr(Classifier, "learn", None)
    evaluated(small_finished.folder, images=5)
    with pytest.raises(TypeError):
        evaluated(small_finished.folder, images=5, overrides=["evaluate.features.steps=2"])


def test_images_are_another_recipes_a_datasets_or_changed(file, small_finished, digits_recipe):
    by_name = evaluated(file, "digits", images=30)
    assert (by_name.dataset["name"], by_name.image_shape, by_name.grid) == ("digits", (8, 8, 1), (4, 4))
    assert by_name.bits_per_pixel == pytest.approx(math.log2(5) / 4)
    assert "the recipe has no [evaluate]" in by_name.lacking[0]
    assert "reconstruction_frechet_distance" not in numbers(by_name)
    of_recipe = evaluated(file, digits_recipe, images=30, overrides=["seed=0", "evaluate.features.steps=2"])
    assert numbers(of_recipe)["reconstruction_psnr"] == numbers(by_name)["reconstruction_psnr"]
    assert "reconstruction_frechet_distance" in numbers(of_recipe)
    changed = evaluated(small_finished, images=30, overrides=["dataset.height=6", "evaluate.features.steps=2"])
    assert (changed.image_shape, changed.dataset["train_images"]) == ((6, 4, 1), 600)
    lossless = evaluate_tokenizer(small_finished, "digits", images=1, device="cpu", quiet=True)
    assert lossless.lacking[0].startswith("Distances in features are left out: a covariance needs features of 2 images")


def test_a_tokenizer_without_loss_has_no_ratio(tmp_path):
    file = write_tokenizer(Pixel(levels=17), {}, str(tmp_path / "pixel.safetensors"))
    measured = evaluated(file, "digits", images=40)
    assert "reconstruction_psnr" not in numbers(measured)
    assert numbers(measured)["reconstruction_ssim"] == pytest.approx(1)
    np.testing.assert_array_equal(measured.originals_NHWC, measured.reconstructions_NHWC)


def test_what_cannot_be_measured_is_said(file, small_finished, small_recipe, tmp_path):
    checkpoint, listed = str(tmp_path / "vqgan.safetensors"), tmp_path / "photos.csv"
    write_tensors({"weight": torch.zeros(1)}, checkpoint, {})
    listed.touch()
    wrong = [
        (lambda: evaluated(file), UserError, "names no images: give --data"),
        (lambda: evaluated(file, "digit"), RecipeError, "did you mean 'digits'"),
        (lambda: evaluated(file, "digits", split="val"), UserError, r"has no split 'val'\. It has: train, test"),
        (lambda: evaluated(file, "digits", images=0), UserError, "images is 0; it must be a whole number from 1"),
        (lambda: evaluated(file, "digits", images=True), UserError, "images is True; it must be a whole number from 1"),
        (lambda: evaluated(file, "digits", overrides=["tokenizer.codes=3"]), RecipeError, "the tokenizer is as it was trained"),
        (lambda: evaluated(file, "digits", overrides=["dataset.fraction=3"]), RecipeError, "no such key"),
        (lambda: evaluated(file, "generated", overrides=["dataset.channels=3"]), GridError, "learned from images with 1 channel"),
        (lambda: evaluated(file, small_recipe, store="there"), UserError, "leave out --store there"),
        (lambda: evaluated("vqgan.bin", "digits"), UserError, "does not say of which tokenizer. Give a recipe"),
        (lambda: evaluated(checkpoint, "digits"), UserError, "does not say of which tokenizer. Give a recipe"),
        (lambda: export_tokenizer(checkpoint, tmp_path / "t.safetensors"), UserError, "does not say of which tokenizer"),
        (lambda: export_tokenizer(file, tmp_path / "t.safetensors"), UserError, "is a tokenizer's file already. Copy it"),
        (lambda: rarkit.load(file), UserError, "is a tokenizer's file, which has no model. Name a run"),
        (lambda: evaluated(None, "digits"), UserError, "source is None; pass the path"),
        (lambda: evaluated(file, str(listed)), UserError, f"is no recipe. To measure its images, .* rarkit new {listed}"),
        (lambda: evaluated(tmp_path / "nowhere", "digits"), RecipeError, "is not a run"),
        (lambda: evaluated(small_recipe, store=tmp_path / "s"), WeightsError, r"Train it: rarkit run .*small\.toml --until fit"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
