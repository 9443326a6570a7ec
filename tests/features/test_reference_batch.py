"""A reference batch that cannot serve is seen when the run is planned; one with statistics alone serves."""

from __future__ import annotations

import numpy as np
import pytest

from rarkit import load_recipe, plan, run
from rarkit.errors import RarkitError
from rarkit.features.inception import Inception
from rarkit.features.reference_batch import ReferenceBatch

IMAGES = np.zeros((3, 4, 4, 3), np.uint8)
MEAN, COVARIANCE = np.zeros(2048, np.float32), np.zeros((2048, 2048), np.float32)
NAMES = {"features": "fid", "spatial": "sfid"}


def widened(count):
    return {"mu": np.zeros(count), "sigma": np.eye(count)}


def changed(value, row=1, column=2):
    covariance = COVARIANCE.copy()
    covariance[row, column] = value
    return {"mu": MEAN, "sigma": covariance}


UNUSABLE = {
    "of another network": (widened(64), r"mu and sigma are of 64 features, but the extractor has 2,048"),
    "of other spatial features": (
        {"arr_0": IMAGES, "mu_s": np.zeros(7), "sigma_s": np.eye(7)},
        r"mu_s and sigma_s are of 7 features, but the extractor has 2,023",
    ),
    "with a number that is not finite": (changed(np.nan), "mu and sigma hold numbers that are not finite"),
    "with an infinite mean": ({"mu": MEAN + np.inf, "sigma": COVARIANCE}, "hold numbers that are not finite"),
    "not symmetric": (changed(1.0), "sigma is not symmetric"),
    "of negative variances": (changed(-1.0, 2, 2), "sigma has negative variances"),
    "complex": ({"mu": MEAN + 1j, "sigma": COVARIANCE}, "not real numbers"),
    "of words": ({"mu": np.array(["a"] * 2048), "sigma": COVARIANCE}, "not real numbers"),
    "pickled": ({"mu": np.array([{}] * 2048), "sigma": COVARIANCE}, "are object and float32, not real numbers"),
    "without covariance": ({"mu": MEAN}, "neither images .* nor mu and sigma, only mu"),
    "images without covariance": ({"arr_0": IMAGES, "mu": MEAN}, "has the array mu, but not sigma"),
    "under other names": ({"mean": MEAN, "cov": COVARIANCE}, "only mean, cov"),
    "empty": ({}, "only no arrays"),
    "with features for images": ({"arr_0": np.zeros((9, 2048), np.float32)}, "must be uint8 images"),
    "of one image": ({"arr_0": IMAGES[:1]}, "a single image and no statistics"),
    "column by column": ({"arr_0": np.asfortranarray(IMAGES)}, "stored column by column"),
}


def with_reference(recipe, place):
    features = Inception(weights=None, reference=str(place))
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"features": features})})


@pytest.mark.parametrize("what", UNUSABLE)
def test_an_unusable_batch_is_refused_for_what_it_is(tmp_path, what):
    arrays, message = UNUSABLE[what]
    np.savez(tmp_path / "batch.npz", **arrays)
    for _ in range(2):  # what was found is not kept for errors
        with pytest.raises(RarkitError, match=rf"batch\.npz.*{message}"):
            Inception(weights=None, reference=str(tmp_path / "batch.npz")).content()


@pytest.mark.parametrize("content", [None, b"version https://git-lfs.github.com/spec/v1\n", "wrong widths"])
def test_it_is_seen_before_anything_runs(digits_recipe, short_overrides, tmp_path, content):
    place = tmp_path / "batch.npz"
    if content == "wrong widths":
        np.savez(place, **widened(64))
    elif content is not None:
        place.write_bytes(content)
    recipe = with_reference(load_recipe(digits_recipe, short_overrides), place)
    planned = plan(recipe, str(tmp_path / "store"))
    actions = {stage.name: (stage.action, stage.reason) for stage in planned.stages}
    assert actions["train"][0] == "run"
    assert actions["reference"] == ("blocked", "weights are missing or unusable")
    assert planned.lacking == []
    with pytest.raises(RarkitError, match=r"batch\.npz"):
        run(recipe, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)
    assert not (tmp_path / "store").exists()


def test_a_file_that_was_replaced_is_checked_again(tmp_path):
    extractor = Inception(weights=None, reference=str(tmp_path / "batch.npz"))
    np.savez(tmp_path / "batch.npz", mu=MEAN, sigma=COVARIANCE)
    before = extractor.content()
    np.savez(tmp_path / "batch.npz", **changed(np.nan))
    with pytest.raises(RarkitError, match="not finite"):
        extractor.content()
    np.savez(tmp_path / "batch.npz", mu=MEAN, sigma=COVARIANCE)
    assert extractor.content() == before


@pytest.mark.parametrize(
    ("arrays", "lacking"),
    [
        ({"arr_0": IMAGES}, []),
        (widened(4), ["sfid is left out", "precision and recall are left out"]),
        (
            widened(4) | {f"{key}_s": array for key, array in widened(3).items()},
            ["precision and recall are left out"],
        ),
        (widened(4) | {"arr_0": IMAGES}, ["sfid is against the images of the reference batch"]),
    ],
)
def test_what_a_batch_lacks_is_said(tmp_path, arrays, lacking):
    np.savez(tmp_path / "batch.npz", **arrays)
    batch = ReferenceBatch(str(tmp_path / "batch.npz"))
    batch.content()
    assert [sentence.split(":")[0] for sentence in batch.lacking(NAMES)] == lacking
    assert batch.has_images == ("arr_0" in arrays)
    assert set(batch.statistics()) == {space for space, key in (("features", "mu"), ("spatial", "mu_s")) if key in arrays}
