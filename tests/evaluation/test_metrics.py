"""All metrics on sets of arrays: which numbers there are, with which intervals and yardsticks, and where they do not apply."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rarkit.evaluation.bits_per_token import frequency_bits
from rarkit.evaluation.class_agreement import agreement
from rarkit.evaluation.codebook_use import codebook_use
from rarkit.evaluation.diversity import diversity
from rarkit.evaluation.frechet import frechet_between, frechet_distance, gaussian, gaussian_of
from rarkit.evaluation.inception_score import inception_score, taking_turns
from rarkit.evaluation.intervals import halves_interval, mean_interval, share_interval
from rarkit.evaluation.metric import Evaluation, TokenizedData, TokenSet
from rarkit.evaluation.metrics import METRICS, measure
from rarkit.evaluation.precision_recall import precision_recall
from rarkit.evaluation.record import MetricRecord
from rarkit.features.classifier import Classifier
from rarkit.features.inception import Inception
from rarkit.randomness import derived_seed

CODES = 8


def image_set(seed, count=30, labelled=True):
    random = np.random.default_rng(seed)
    arrays = {"features": random.normal(size=(count, 5)), "logits": random.normal(size=(count, 3))}
    arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    return arrays | ({"labels": np.arange(count) % 3} if labelled else {})


def token_set(seed):
    return TokenSet(np.random.default_rng(seed).integers(0, CODES, (20, 4)), np.zeros(20, np.int64))


def nats_per_token(tokens):
    return tokens.tokens_NL.mean(1) + 0.5


TOKENIZED = TokenizedData(
    train=token_set(1),
    held_out=token_set(2),
    held_out_split="test",
    codebook_size=CODES,
    decibels_N=np.array([math.inf, 30.0, 40.0]),
    similarities_N=np.array([1.0, 0.8, 0.9]),
    nats_per_token=nats_per_token,
)
EVALUATION = Evaluation(
    samples=image_set(0, 20),
    real=image_set(1, 40),
    yardsticks={"real test images": image_set(2, 20), "reconstructions": image_set(5, 20), "uniform tokens": image_set(3, 20)},
    extractor=Classifier(),
    tokenized=TOKENIZED,
    seed=7,
    resamplings=4,
)


def measured(evaluation=EVALUATION):
    return {record.name: record for record in measure(METRICS, evaluation)[0]}


def test_the_numbers_and_their_order():
    assert list(measured()) == [
        "frechet_distance",
        "class_agreement",
        "diversity",
        "precision",
        "recall",
        "bits_per_token",
        "reconstruction_psnr",
        "reconstruction_ssim",
        "reconstruction_frechet_distance",
        "codebook_use",
        "codebook_perplexity",
    ]
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_records_survive_json():
    for record in measured().values():
        assert MetricRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
        assert record.explanation.endswith(".")


def test_yardsticks_are_measured_as_the_samples_are():
    swapped = replace(EVALUATION, samples=EVALUATION.yardsticks["uniform tokens"], yardsticks={"samples": EVALUATION.samples})
    for name, record in measured().items():
        if "uniform tokens" in record.yardsticks and name != "bits_per_token":
            other = measured(swapped)[name]
            assert other.value == record.yardsticks["uniform tokens"]
            assert other.yardsticks == {"samples": record.value}


def test_each_number_is_that_of_its_mathematics():
    samples, real, records = EVALUATION.samples, EVALUATION.real, measured()
    assert records["frechet_distance"].value == frechet_between(gaussian(real["features"]), gaussian(samples["features"]))
    assert records["class_agreement"].value == agreement(samples["logits"], samples["labels"])
    assert records["diversity"].value == diversity(real["features"], real["labels"], samples["features"], samples["labels"])
    overlap = precision_recall(real["features"], samples["features"], 3)
    assert (records["precision"].value, records["recall"].value) == (overlap.precision, overlap.recall)
    assert records["codebook_use"].value == len(np.unique(TOKENIZED.held_out.tokens_NL)) / CODES
    assert records["codebook_use"].yardsticks == {"training images": len(np.unique(TOKENIZED.train.tokens_NL)) / CODES}
    held_out, training = (codebook_use(tokens.tokens_NL, CODES).perplexity for tokens in (TOKENIZED.held_out, TOKENIZED.train))
    perplexity = records["codebook_perplexity"]
    assert (perplexity.value, perplexity.yardsticks) == (held_out, {"training images": training})
    sets = [EVALUATION.yardsticks[name]["features"] for name in ("real test images", "reconstructions")]
    assert records["reconstruction_frechet_distance"].value == frechet_distance(*sets)
    assert records["reconstruction_psnr"].value == 35
    bits = records["bits_per_token"]
    assert bits.value == pytest.approx(nats_per_token(TOKENIZED.held_out).mean() / math.log(2))
    assert bits.yardsticks == {
        "training images": pytest.approx(nats_per_token(TOKENIZED.train).mean() / math.log(2)),
        "token frequencies": frequency_bits(TOKENIZED.train.tokens_NL, TOKENIZED.held_out.tokens_NL, CODES),
        "uniform tokens": 3.0,
    }


def test_there_are_intervals_unless_they_are_switched_off():
    records, features, labels = measured(), EVALUATION.samples["features"], EVALUATION.samples["labels"]
    real = gaussian(EVALUATION.real["features"])
    expected = halves_interval(
        lambda rows: frechet_between(real, gaussian(rows)),
        [features],
        labels,
        seed=derived_seed(7, "intervals"),
        splits=2,
        lowest=0,
    )
    assert (records["frechet_distance"].low, records["frechet_distance"].high) == expected
    hits = EVALUATION.samples["logits"].argmax(1) == labels
    assert (records["class_agreement"].low, records["class_agreement"].high) == share_interval(hits, labels)
    bits = mean_interval(nats_per_token(TOKENIZED.held_out) / math.log(2))
    assert (records["bits_per_token"].low, records["bits_per_token"].high) == bits
    assert {name for name, one in measured().items() if one.low is not None} == {
        "frechet_distance",
        "class_agreement",
        "diversity",
        "bits_per_token",
    }
    assert all(one.low is one.high is None for one in measured(replace(EVALUATION, resamplings=0)).values())


def test_without_yardsticks_samples_alone_are_measured():
    records = measured(replace(EVALUATION, yardsticks={}, tokenized=None))
    assert list(records) == ["frechet_distance", "class_agreement", "diversity", "precision", "recall"]
    assert all(record.yardsticks == {} for record in records.values())


def test_another_datasets_classes_are_scored_in_turns():
    records = measured(replace(EVALUATION, extractor=Inception(weights=None)))
    assert "class_agreement" not in records
    logits, labels = EVALUATION.samples["logits"], EVALUATION.samples["labels"]
    assert records["inception_score"].value == inception_score(logits[taking_turns(labels)])


def test_reconstructions_have_an_fid_in_published_features_alone():
    for weights, name in ((None, "reconstruction_frechet_distance"), ("published.pth", "rfid")):
        records = measured(replace(EVALUATION, extractor=Inception(weights=weights)))
        assert records[name].value == measured()["reconstruction_frechet_distance"].value


def test_statistics_of_a_reference_batch_stand_for_its_images():
    mean, covariance = np.ones(5), np.diag([1.0, 2, 3, 4, 5])
    batch = {**image_set(1, labelled=False), "features_mean": mean, "features_covariance": covariance}
    records = measured(replace(EVALUATION, real=batch))
    assert "diversity" not in records
    own = gaussian(EVALUATION.samples["features"])
    assert records["frechet_distance"].value == frechet_between(gaussian_of(mean, covariance), own)


def test_spatial_features_have_a_distance_of_their_own():
    def with_spatial(images):
        return images | {"spatial": images["features"][:, :2] * 3}

    evaluation = replace(
        EVALUATION,
        samples=with_spatial(EVALUATION.samples),
        real=with_spatial(EVALUATION.real),
        yardsticks={name: with_spatial(images) for name, images in EVALUATION.yardsticks.items()},
    )
    assert list(measured(evaluation))[:2] == ["frechet_distance", "spatial_frechet_distance"]


def test_what_does_not_apply_is_left_out():
    few = replace(EVALUATION, samples=image_set(0, 3))
    assert not {"diversity", "precision", "recall"} & set(measured(few))
    exact = replace(TOKENIZED, decibels_N=np.full(3, math.inf), similarities_N=np.ones(3))
    records = measured(replace(EVALUATION, tokenized=exact))
    assert "reconstruction_psnr" not in records
    assert records["reconstruction_ssim"].value == 1


@pytest.mark.parametrize(
    ("few", "left_out"),
    [
        ({"samples": image_set(0, 1)}, {"frechet_distance", "diversity", "precision_recall"}),
        ({"samples": image_set(0, 3)}, {"diversity", "precision_recall"}),
        ({"samples": image_set(0, 4)}, set()),
        ({"real": image_set(1, 1)}, {"frechet_distance", "diversity", "precision_recall"}),
        ({"real": image_set(1, 3)}, {"diversity", "precision_recall"}),
    ],
)
def test_too_few_images_for_a_number_leave_the_others(few, left_out):
    records, lacking = measure(METRICS, replace(EVALUATION, **few))
    assert {sentence.split(" is left out: ")[0] for sentence in lacking} == left_out
    assert {"class_agreement", "bits_per_token", "codebook_use"} <= {record.name for record in records}


@pytest.mark.parametrize(
    ("count", "measuring"), [(1, set()), (3, {"frechet_distance"}), (4, {"frechet_distance", "diversity", "precision", "recall"})]
)
def test_a_yardstick_of_too_few_images_is_left_out_where_it_cannot_be_measured(count, measuring):
    yardsticks = {**EVALUATION.yardsticks, "few": image_set(4, count)}
    records, lacking = measure(METRICS, replace(EVALUATION, yardsticks=yardsticks))
    assert {record.name for record in records if "few" in record.yardsticks} == {"class_agreement", *measuring}
    assert {record.name: record.value for record in records} == {name: record.value for name, record in measured().items()}
    assert lacking == []


def test_a_dataset_without_held_out_images_says_so():
    records = measured(replace(EVALUATION, tokenized=replace(TOKENIZED, held_out_split="train")))
    for name in ("bits_per_token", "reconstruction_ssim", "codebook_use"):
        assert "this dataset has no held-out split" in records[name].explanation
        assert "held-out images" not in records[name].explanation


def test_token_frequencies_follow_laplaces_rule():
    train, held_out = np.array([[0, 0, 1]]), np.array([[0, 2]])
    assert frequency_bits(train, held_out, 3) == pytest.approx(-(math.log2(3 / 6) + math.log2(1 / 6)) / 2)
