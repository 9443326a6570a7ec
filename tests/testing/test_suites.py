"""The suites pass on what rarkit ships and on small sound parts, and each of their tests fails on a part that is wrong."""

from __future__ import annotations

import inspect
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rarkit.testing
from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.digits import Digits
from rarkit.errors import RarkitError
from rarkit.features.classifier import Classifier
from rarkit.testing import (
    AttentionBackendSuite,
    DatasetSuite,
    FeatureExtractorSuite,
    ModelFamilySuite,
    PermutationScheduleSuite,
    ScanOrderSuite,
    TokenizerSuite,
    grids,
    images,
    orders,
)
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel
from tests.testing.heavy_part import Heavy
from tests.testing.wrong_heavy_parts import GREY, Flat, Levels, Noise, Wrong
from tests.testing.wrong_light_parts import (
    Backwards,
    Bare,
    Careless,
    Doubled,
    Fickle,
    Lenient,
    Moody,
    Mumbling,
    Nameless,
    Rising,
    Shared,
    TooMuch,
)
from tests.testing.wrong_model_family import Bent


class TestAttention(AttentionBackendSuite):
    parts = (Plain(), SDPA(), Wrong(fault="none"))


class TestForwardsOnly(AttentionBackendSuite):
    parts = (Flex(),)
    gradients = False


class TestAttentionInBfloat16(AttentionBackendSuite):
    parts = (Plain(), SDPA())
    dtype = "bfloat16"
    tolerance = 0.02


class TestDatasets(DatasetSuite):
    parts = (Digits(), Digits(test_fraction=0.5), Noise())


class TestTokenizers(TokenizerSuite):
    parts = (PatchKMeans(codes=16), Pixel(), Levels())

    def info(self):
        return GREY


class TestFeatureExtractors(FeatureExtractorSuite):
    parts = (Classifier(steps=3, width=4), Flat())

    def info(self):
        return GREY


class TestModelFamilies(ModelFamilySuite):
    parts = (Bent(), Bent(attention_dropout=0.3, class_dropout=0.0))


WRONG = [
    (ScanOrderSuite, "test_it_can_be_named_in_a_recipe", Nameless(name="another")),
    (ScanOrderSuite, "test_settings_are_frozen_and_unknown_ones_refused", Lenient()),
    (ScanOrderSuite, "test_it_is_documented", Bare()),
    (ScanOrderSuite, "test_its_identity_is_json_and_stable", Fickle()),
    (ScanOrderSuite, "test_it_says_where_it_cannot_work", Mumbling()),
    (ScanOrderSuite, "test_it_is_light_to_import", Heavy()),
    (ScanOrderSuite, "test_it_visits_every_cell_once", Doubled()),
    (ScanOrderSuite, "test_it_visits_every_cell_once", Backwards()),
    (ScanOrderSuite, "test_rank_is_the_inverse", Doubled()),
    (ScanOrderSuite, "test_it_gives_the_same_order_every_time", Shared()),
    (ScanOrderSuite, "test_grids_that_it_cannot_serve_are_refused", Careless()),
    (PermutationScheduleSuite, "test_the_ratio_is_a_probability_at_every_step", TooMuch()),
    (PermutationScheduleSuite, "test_it_is_a_pure_function", Moody()),
    (PermutationScheduleSuite, "test_it_falls_if_it_says_so", Rising()),
    (TokenizerSuite, "test_codes_are_a_grid_of_the_codebook", Levels(fault="range")),
    (TokenizerSuite, "test_every_code_decodes_to_an_image", Levels(fault="decode")),
    (TokenizerSuite, "test_an_image_does_not_depend_on_its_batch", Levels(fault="batch")),
    (TokenizerSuite, "test_other_images_have_a_grid_or_are_refused", Levels(fault="grid")),
    (TokenizerSuite, "test_what_it_learns_is_a_function_of_data_and_seed", Levels(fault="fit")),
    (TokenizerSuite, "test_a_tokenizer_that_learns_nothing_says_so", Levels(fault="silent")),
    (AttentionBackendSuite, "test_it_is_softmax_attention", Wrong(fault="scale")),
    (AttentionBackendSuite, "test_its_gradients_are_those_of_softmax_attention", Wrong(fault="detached")),
    (AttentionBackendSuite, "test_the_future_is_unseen", Wrong(fault="peeking")),
    (AttentionBackendSuite, "test_dropout_zeroes_weights_or_is_refused", Wrong(fault="undropped")),
    (AttentionBackendSuite, "test_dropout_zeroes_weights_or_is_refused", Wrong(fault="unscaled")),
    (AttentionBackendSuite, "test_dropout_zeroes_weights_or_is_refused", Wrong(fault="refusing")),
    (AttentionBackendSuite, "test_dropout_zeroes_weights_or_is_refused", Wrong(fault="denying")),
    (AttentionBackendSuite, "test_seeded_masks_depend_on_seed_and_layer_alone", Wrong(fault="unseeded")),
    (AttentionBackendSuite, "test_seeded_masks_depend_on_seed_and_layer_alone", Wrong(fault="together")),
    (AttentionBackendSuite, "test_seeded_masks_depend_on_seed_and_layer_alone", Wrong(fault="layerless")),
    (DatasetSuite, "test_images_are_what_info_says", Noise(fault="labels")),
    (DatasetSuite, "test_blocks_have_the_size_asked_for", Noise(fault="blocks")),
    (DatasetSuite, "test_rows_stay_where_they_are", Noise(fault="order")),
    (DatasetSuite, "test_rows_stay_where_they_are", Noise(fault="memory")),
    (DatasetSuite, "test_chosen_rows_are_the_rows_of_those_numbers", Noise(fault="chosen")),
    (DatasetSuite, "test_splits_are_what_it_says", Noise(fault="any_split")),
    (DatasetSuite, "test_the_count_is_that_of_the_images", Noise(fault="count")),
    (FeatureExtractorSuite, "test_it_takes_the_images", Flat(fault="refuses")),
    (FeatureExtractorSuite, "test_features_are_finite_vectors", Flat(fault="nan")),
    (FeatureExtractorSuite, "test_an_image_does_not_depend_on_its_batch", Flat(fault="batch")),
    (FeatureExtractorSuite, "test_an_image_does_not_depend_on_its_batch", Flat(fault="logits")),
    (FeatureExtractorSuite, "test_only_inception_is_called_fid", Flat(fault="fid")),
    (FeatureExtractorSuite, "test_what_it_learns_is_a_function_of_data_and_seed", Flat(fault="fit")),
    (ModelFamilySuite, "test_its_sizes_are_those_of_the_images", Bent(fault="count")),
    (ModelFamilySuite, "test_a_new_model_is_a_function_of_its_seed", Bent(fault="seedless")),
    (ModelFamilySuite, "test_a_new_model_is_a_function_of_its_seed", Bent(fault="global")),
    (ModelFamilySuite, "test_it_says_what_it_expects_at_every_step", Bent(fault="shape")),
    (ModelFamilySuite, "test_it_sees_the_tokens_before_a_step_and_no_others", Bent(fault="peeking")),
    (ModelFamilySuite, "test_it_sees_the_tokens_before_a_step_and_no_others", Bent(fault="blind")),
    (ModelFamilySuite, "test_a_sample_does_not_depend_on_its_batch", Bent(fault="batch")),
    (ModelFamilySuite, "test_the_class_matters_unless_it_is_dropped", Bent(fault="classless")),
    (ModelFamilySuite, "test_the_class_matters_unless_it_is_dropped", Bent(fault="undropped")),
    (ModelFamilySuite, "test_checkpointing_gives_the_same_gradients", Bent(fault="detached")),
    (ModelFamilySuite, "test_dropout_acts_in_training_alone", Bent(fault="always")),
    (ModelFamilySuite, "test_dropout_acts_in_training_alone", Bent(fault="never")),
    (ModelFamilySuite, "test_masks_of_attention_weights_come_from_the_samples_seeds", Bent(fault="unseeded")),
    (ModelFamilySuite, "test_it_decodes_what_forward_computes", Bent(fault="stale")),
    (ModelFamilySuite, "test_it_decodes_what_forward_computes", Bent(fault="unguided")),
    (ModelFamilySuite, "test_restored_and_loaded_models_are_the_same", Bent(fault="restored")),
    (ModelFamilySuite, "test_restored_and_loaded_models_are_the_same", Bent(fault="training")),
    (ModelFamilySuite, "test_weights_that_do_not_fit_are_refused", Bent(fault="lenient")),
    (ModelFamilySuite, "test_merging_positions_keeps_the_logits_or_is_refused", Bent(fault="merged")),
    (ModelFamilySuite, "test_its_costs_grow_with_the_work", Bent(fault="flat")),
    (ModelFamilySuite, "test_it_is_sampled_in_what_it_says", Bent(fault="silent")),
    (ModelFamilySuite, "test_it_takes_its_own_schedule", Bent(fault="schedule")),
    (ModelFamilySuite, "test_it_can_be_rehearsed", Bent(fault="rehearsed")),
]


@pytest.mark.parametrize(
    ("suite", "test", "part"), WRONG, ids=lambda value: getattr(value, "name", getattr(value, "__name__", value))
)
def test_a_wrong_part_fails(suite, test, part):
    made = type("Made", (suite,), {"parts": (part,), "falls": True, "info": lambda self: GREY})()
    method = getattr(made, test)
    arguments = (9, 9, True) if "queries" in inspect.signature(method).parameters else ()
    with pytest.raises((AssertionError, pytest.fail.Exception, RarkitError)) as caught:
        method(*arguments)
    assert str(caught.value).strip(), "a failure must say what is wrong"


def test_a_suite_without_parts_fails():
    made = type("Made", (ScanOrderSuite,), {"parts": ()})()
    with pytest.raises(AssertionError, match="set parts"):
        made.test_it_is_documented()


def test_every_test_of_every_suite_has_a_part_that_fails_it():
    suites = [getattr(rarkit.testing, name) for name in rarkit.testing.__all__ if name.endswith("Suite")]
    assert len(suites) == 7
    # By function: what suites inherit counts once.
    tests = {getattr(suite, name) for suite in suites for name in dir(suite) if name.startswith("test_")}
    assert tests == {getattr(suite, test) for suite, test, _ in WRONG}


@pytest.mark.parametrize("part", [Levels, Wrong, Noise, Flat, Bent])
def test_every_fault_is_tried(part):
    faults = set(get_args(part.model_fields["fault"].annotation)) - {"none"}
    assert faults == {wrong.fault for _, _, wrong in WRONG if isinstance(wrong, part)}


@given(grids(5), orders(6), st.integers(1, 4), st.data())
def test_strategies_give_what_they_say(grid, order, size, data):
    assert all(1 <= side <= 5 for side in grid)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(6))
    drawn = data.draw(images(size, 2 * size, 3, most=2))
    assert drawn.dtype == np.uint8
    assert drawn.shape[1:] == (size, 2 * size, 3)
    assert 1 <= len(drawn) <= 2
