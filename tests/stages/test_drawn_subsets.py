"""Where a part of the data stands for all of it, its rows are drawn from all: datasets are often sorted by class."""

from __future__ import annotations

import numpy as np
import pytest

from rarkit import load_recipe, run
from rarkit.datasets.digits import Digits
from rarkit.evaluation.reconstruction import compared
from rarkit.inference import tokenizer_evaluation
from rarkit.inference.tokenizer_evaluation import evaluate_tokenizer
from rarkit.randomness import drawn_rows
from rarkit.stages import evaluate, reference, shown_images
from rarkit.stages.reference import image_sets

FEW, COMPARED = 60, 25
"""Images that measures look at in this test, and PSNR and SSIM, instead of thousands."""


@pytest.fixture(scope="module")
def sorted_folder(tmp_path_factory):
    """The digits as ``image_folder`` reads its classes: sorted, so that the first 60 of 359 test images are zeros and ones."""
    folder = tmp_path_factory.mktemp("sorted")
    for split in ("train", "test"):
        block = Digits().open(split).read()
        rows = np.argsort(block.labels_N, kind="stable")
        np.savez(folder / f"{split}.npz", images=block.images_NHWC[rows], labels=block.labels_N[rows])
    return folder


def test_what_is_measured_and_shown_is_of_all_classes(sorted_folder, digits_recipe, short_overrides, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "MEASURED_IMAGES", FEW)
    monkeypatch.setattr(reference, "YARDSTICK_IMAGES", FEW)
    for module in (reference, tokenizer_evaluation):
        monkeypatch.setattr(module, "COMPARED_IMAGES", COMPARED)
    folder = f'{{name = "npz", path = "{sorted_folder}/train.npz", test_path = "{sorted_folder}/test.npz"}}'
    recipe = load_recipe(digits_recipe, [*short_overrides, f"dataset={folder}", "sample.per_class=2", "evaluate.batch_size=16"])
    done = run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    tokens, seen = done.plan["tokenize"].output, done.plan["reference"].output
    labels, codes = tokens.read_array("test_labels"), tokens.read_array("test_tokens")
    rows = drawn_rows(recipe.seed, len(labels), FEW)
    assert set(labels[:FEW]) == {0, 1}
    assert set(labels[rows]) == set(range(10))
    for name, images in image_sets(seen).items():
        if name != "real":
            np.testing.assert_array_equal(images["labels"], labels[rows])
            assert len(images["features"]) == FEW
    values = {metric.name: metric.value for metric in done.metrics}
    evaluated = evaluate_tokenizer(done, images=FEW, device="cpu", quiet=True)
    alone = {metric.name: metric.value for metric in evaluated.metrics}
    same = {name for name in values if name.startswith("reconstruction_")}
    assert same == {"reconstruction_psnr", "reconstruction_ssim", "reconstruction_frechet_distance"}
    for name in same:
        np.testing.assert_allclose(values[name], alone[name], rtol=1e-5)
    assert values["codebook_use"] == len(np.unique(codes[rows])) / 16
    shown, few = (drawn_rows(recipe.seed, len(labels), count) for count in (shown_images.SHOWN_IMAGES, COMPARED))
    block = Digits().open("test").read()
    originals = block.images_NHWC[np.argsort(block.labels_N, kind="stable")]
    patches = done.plan["fit"].output.read_array("state_codebook").round().astype(np.uint8)[codes.astype(np.int64)]
    reconstructions = patches.reshape(-1, 4, 4, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 8, 8, 1)
    np.testing.assert_array_equal(seen.read_array("shown_originals"), originals[shown])
    np.testing.assert_array_equal(seen.read_array("shown_reconstructions"), reconstructions[shown])
    for name, values_N in zip(("psnr", "ssim"), compared(originals[few], reconstructions[few]), strict=True):
        assert values[f"reconstruction_{name}"] == pytest.approx(values_N.mean())
    explained = [metric.explanation for metric in done.metrics if metric.name in ("reconstruction_psnr", "reconstruction_ssim")]
    assert all(f"over {COMPARED} held-out images" in words for words in explained)
