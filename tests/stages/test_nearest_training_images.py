"""The training images beside samples are the nearest ones, and the page shows them with their distances."""

from __future__ import annotations

import numpy as np
import pytest

from rarkit.cache.store import Store
from rarkit.datasets.digits import Digits
from rarkit.features.inception import Inception
from rarkit.stages import nearest_training_images
from rarkit.stages.base import read_state
from rarkit.stages.evaluate import nearest_images
from rarkit.stages.nearest_training_images import Search, write_nearest


@pytest.fixture(scope="module")
def outputs(finished):
    return finished.plan.outputs()


@pytest.fixture(scope="module")
def digits(finished):
    dataset = finished.plan.recipe.dataset
    assert isinstance(dataset, Digits)
    return {split: dataset.open(split).read() for split in ("train", "test")}


def test_they_are_the_nearest_in_the_features_of_the_recipe(outputs, digits):
    numbers = nearest_images(outputs["evaluate"])
    assert (numbers.searched, numbers.training_images, numbers.of_the_classes) == (1438, 1438, False)
    real_NF = outputs["reference"].read_array("real_features").astype(float)
    first_of_each = [int(np.flatnonzero(digits["test"].labels_N == label)[0]) for label in range(10)]
    rows = {"samples": np.arange(10) * 30, "held_out": np.array(first_of_each)}
    images = {"samples": outputs["sample"].read_array("images"), "held_out": digits["test"].images_NHWC}
    features = {"samples": outputs["evaluate"].read_array("features"), "held_out": outputs["reference"].read_array("test_features")}
    for name, rows_Q in rows.items():
        shown_QKHWC = outputs["evaluate"].read_array(f"nearest_to_{name}")
        np.testing.assert_array_equal(shown_QKHWC[:, 0], images[name][rows_Q])
        distances_QN = np.linalg.norm(features[name][rows_Q][:, None].astype(float) - real_NF, axis=2)
        order_QK = np.argsort(distances_QN, 1, kind="stable")[:, :3]
        np.testing.assert_array_equal(shown_QKHWC[:, 1:], digits["train"].images_NHWC[order_QK])
        np.testing.assert_allclose(numbers.distances[name], np.take_along_axis(distances_QN, order_QK, 1), rtol=1e-4)


def test_the_page_shows_them_with_their_distances(finished, outputs):
    page = (finished.folder / "report.html").read_text()
    numbers = nearest_images(outputs["evaluate"])
    for distances_QK in numbers.distances.values():
        labels = "".join(f'<li title="{near:.3g}">{near:.3g}</li>' for near, *_ in distances_QK)
        assert labels in page
    assert "Searched: all 1,438 training images." in page


def test_beside_a_published_batch_some_images_of_the_classes_are_searched(finished, outputs, digits, tmp_path, monkeypatch):
    """The features of the training images are not in the store then."""
    monkeypatch.setattr(nearest_training_images, "MOST_DRAWN", 200)
    settings = finished.plan.recipe.evaluate.features
    search = Search(
        samples=outputs["sample"],
        tokens=outputs["tokenize"],
        reference=outputs["reference"],
        dataset=finished.plan.recipe.dataset,
        held_out_split="test",
        extractor=Inception(weights=None, reference=str(tmp_path / "batch.npz")),
        model=settings.build(read_state(outputs["reference"]), "cpu"),
        seed=1,
    )
    features_NF = outputs["evaluate"].read_array("features")
    results = []
    for name in ("one", "two"):
        output = Store(str(tmp_path / name)).output("evaluate", "f00d")
        with output.writing({"identity": {}}):
            results.append((write_nearest(search, features_NF, output), output.read_array("nearest_to_samples")))
    (numbers, shown), (again, shown_again) = results
    assert numbers == again
    np.testing.assert_array_equal(shown, shown_again)
    assert (numbers.searched, numbers.training_images, numbers.of_the_classes) == (200, 1438, True)
    training = {image.tobytes() for image in digits["train"].images_NHWC}
    assert all(image.tobytes() in training for images in shown for image in images[1:])
    complete = nearest_images(outputs["evaluate"]).distances["samples"]
    assert (np.array(numbers.distances["samples"]) >= np.array(complete) - 1e-4).all()
