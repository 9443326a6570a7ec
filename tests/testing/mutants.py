"""Parts that are wrong, and the test of its suite that each must fail, with words that the message must have.

The tests run each mutant against that test; ``benchmarks/mutants.py`` runs every mutant against the whole suite of its kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rarkit import Component
from tests.testing.heavy_part import Heavy
from tests.testing.wrong_attention import Wrong
from tests.testing.wrong_datasets import Noise
from tests.testing.wrong_feature_extractors import Flat
from tests.testing.wrong_light_parts import Bare, Fickle, Lenient, Mumbling, Nameless
from tests.testing.wrong_model_family import Bent
from tests.testing.wrong_orders import WrongOrder
from tests.testing.wrong_schedules import WrongSchedule
from tests.testing.wrong_tokenizers import GREY, Levels
from tests.testing.wrong_trackers import Lines, tracked


class Mutant(NamedTuple):
    """A wrong part."""

    part: Component
    test: str
    """The test that fails, without ``test_``."""
    words: str
    """What the message says, besides the part: the input and the fault."""

    @property
    def name(self) -> str:
        fault = getattr(self.part, "fault", "")
        return f"{self.part.name} {fault}".strip()


FAULTY: dict[type[Any], dict[str, dict[str, str]]] = {
    WrongOrder: {
        "it_visits_every_cell_once": {
            "twice": "on a grid of 1×2: .*visits cell 0 2 times and cell 1 never",
            "int32": "on a grid of 1×1: .*int32",
            "list": "on a grid of 1×1: .*list",
            "view": "on a grid of 1×1: .*|on a grid of 1×2: .*not contiguous",
            "short_row": "on a grid of 1×2: ",
            "long_row": "on a grid of 1×41: ",
            "column": "on a grid of 2×1: ",
            "wide": "on a grid of 7×8: ",
            "high": "on a grid of 8×7: ",
            "32": "on a grid of 32×32: ",
            "many_cells": r"on a grid of \d+×\d+: ",
        },
        "it_gives_the_same_order_every_time": {
            "random_on_a_row": "on a grid of 1×\\d+: gives another order when asked again",
            "random_on_12": "on a grid of 12×12: gives another order",
            "shared": "an array of its own",
            "counting": "gives another order when asked again",
            "global": "global generator of numpy",
        },
        "it_gives_the_same_order_in_another_process": {
            "memoised": "on a grid of .*: differs in another process",
            "hashed": "on a grid of .*: differs in another process",
        },
        "it_serves_the_grids_it_should": {"picky": "on a grid of 2×2: is refused: it needs an odd number of rows"},
        "grids_that_it_cannot_serve_are_refused": {
            "mute": "on a grid of 1×2: requires ''",
            "crashing": "on a grid of 11×1: raises ZeroDivisionError",
        },
    },
    WrongSchedule: {
        "the_ratio_is_a_probability_at_every_step": {
            "above": "at step 0 of 1: .*1.5",
            "below": "at step 0 of 1: .*-1.0",
            "nan": "at step 0 of 1: .*nan",
            "text": "at step 0 of 1: .*'1'",
            "at_the_end": "at step 1 of 1: .*1.000000001",
            "past_200": "at step 1 of 201: ",
            "past_500": "at step 6?01 of (501|600|1000): |at step \\d+ of \\d+: .*returns -",
            "one_step": "at step 0 of 1: raises ZeroDivisionError",
            "past_a_million": r"at step \d+ of \d{7,}: .*2.0",
        },
        "it_is_a_pure_function": {
            "moody": "where it gave .* before",
            "after_30": "gives 0.5 where it gave",
            "global": "global generator of random",
        },
        "it_gives_the_same_ratios_in_another_process": {
            "process": "at step .* differs in another process",
            "forgetful": "at step .* differs in another process",
        },
        "it_falls_if_it_says_so": {
            "rising": "at step 1 of 1: rises from 0.0 at step 0 to 1.0",
            "rising_past_500": "at step 1 of 501|of 600|of 1000: rises",
            "bump": "at step 200 of 200: rises",
        },
    },
    Levels: {
        "codes_are_a_grid_of_the_codebook": {
            "range": "given images of 8×8 .*(255|256)",
            "int32": "given images of 8×8 .*int32",
            "squeezed": "given images of 8×8 .*encodes to torch.int64 \\(8, 8\\)",
            "random": "encodes differently the second time|global generator of torch",
            "writes_images": "modifies the images",
        },
        "every_code_decodes_to_an_image": {
            "decode": "given the codes 0 to 255: .*float32",
            "writes_codes": "given the codes 0 to 255: modifies the codes",
        },
        "an_image_does_not_depend_on_its_batch": {
            "batch": "in batches of \\[1, 1, 1, 1, 1\\]: encodes an image differently",
            "one_by_one": "given the codes of 5 images: raises AssertionError",
            "large_batch": "given the 5 images 14 times in one batch: encodes an image differently",
            "large_batch_of_codes": "given the 5 images 14 times in one batch: decodes an image differently",
        },
        "memory_may_be_in_any_order": {
            "view_of_images": "given images that are not contiguous: raises RuntimeError",
            "view_of_codes": "given codes that are not contiguous: raises RuntimeError",
        },
        "different_images_have_different_codes": {
            "zeros": "given 8 different pictures: gives all of them the same codes, 0 to 0",
            "black": "given 8 different grids of codes: decodes all of them to the same image, of levels up to 0",
            "one_image": "given 8 different grids of codes: decodes all of them to the same image",
            "dark": "decodes to levels up to 1",
        },
        "codes_have_their_place_in_the_image": {
            "codes_upside_down": "given images of 8×8 .* whose lower halves differ: gives other codes to",
            "codes_transposed": "given images of 8×8 .* whose lower halves differ: gives other codes to",
            "mirrored": "differ in the right half: changes pixels",
        },
        "a_decoded_image_resembles_its_image": {
            "upside_down": "given images of 8×8 .*is like the picture upside down",
            "transposed": "given images of 8×8 .*is like the picture transposed",
            "negative": "is like the picture negative",
            "faint": "standard deviation",
            "bright": "levels lighter than the pictures",
        },
        "other_images_have_a_grid_or_are_refused": {"grid": "asked about images of 1×2 .*\\(0, 2\\)"},
        "what_it_learns_is_a_function_of_data_and_seed": {
            "fit": "fitted twice .*: learns another 'drawn'",
            "lists": "'drawn', which is an array of <U6",
            "seeded_globally": "global generator of numpy",
        },
        "it_is_the_same_in_another_process": {"hashed": "in what it learns: differs in another process"},
        "a_part_that_learns_nothing_says_so": {"silent": "returns \\{\\}, but learns is False"},
    },
    Wrong: {
        "it_is_softmax_attention": {
            "scale": "given batch 2, 3 heads, 9 queries, 9 keys, width 16, causal, in float32: is off by",
            "scale_of_16": "width 32.*is off by",
            "narrow": "width 88.*is off by",
            "views": "12 queries, 12 keys, width 48, causal, views of a joint projection .*raises RuntimeError",
            "cache_views": "1 queries, 33 keys, width 32, slices of a cache .*raises RuntimeError",
            "one_sample": "given batch 1, .*raises AssertionError",
            "one_head": "1 heads.*",
            "one_query": "1 queries.*returns torch.float32 \\(3, 2, 32\\)",
            "many_samples": "given batch 40, 16 heads, .*is off by",
            "many_heads": "given batch 40, 16 heads, .*is off by",
            "256_keys": "258 keys|300 keys",
            "1024_keys": "1030 keys.*is off by",
            "peeking_past_256": "258 keys.*is off by",
            "always_causal": "9 queries, 9 keys, width 16, in float32: is off by",
            "coarse": "is off by .* where 1e-05 is allowed",
        },
        "it_is_softmax_attention_in_half_precision": {
            "bfloat16": "in bfloat16: raises RuntimeError: expected scalar type Float",
            "upcast": "in bfloat16: returns torch.float32",
        },
        "large_scores_do_not_overflow": {"overflow": "scores of up to 900 standard deviations.*is off by inf"},
        "its_gradients_are_those_of_softmax_attention": {
            "detached": "has a gradient that is off by|returns no gradient",
            "detached_values": "returns no gradient",
        },
        "the_future_is_unseen": {"peeking": "lets queries before 4 see keys from 4 on"},
        "inputs_stay_as_they_are": {"in_place": "modifies queries, keys or values", "noisy": "global generator of torch"},
        "dropout_zeroes_weights_or_is_refused": {
            "undropped": "given dropout of a quarter of the weights: drops 0.0% of them",
            "unscaled": "leaves weights that are off by 25%",
            "refusing": "refuses dropout .*\n.*has_dropout = False",
            "denying": "accepts dropout, although has_dropout is False",
        },
        "seeded_masks_depend_on_seed_and_layer_alone": {
            "unseeded": "given the same seeds twice: draws other masks",
            "together": "given a sample alone: draws another mask",
            "layerless": "given another layer: draws the same masks",
        },
    },
    Noise: {
        "images_are_what_info_says": {
            "labels": "in rows 0 to 49 of 'train': .*the label 3",
            "label_60": "in rows 50 to 99 of 'train': .*the label 3",
            "one_label": "in split 'train': labels all images \\[0\\]",
            "int32_labels": "int32",
            "size": "\\(7, 8, 1\\)",
            "same_names": "its class names: are not all different",
            "black": "has no level but \\[0\\]",
            "fractions": "has no level but \\[0, 1\\]",
        },
        "the_count_is_that_of_the_images": {
            "count": "in split 'train': counts 199 images where there are 200",
            "empty": "in split 'test': has no images",
        },
        "blocks_have_the_size_asked_for": {"blocks": "in blocks of 1: gives blocks of"},
        "rows_stay_where_they_are": {
            "order": "gives other images",
            "memory": "rows 0 to 63 of 'train' in blocks of 7: gives other images",
            "flips": "global generator|gives other images",
            "late_block": r"rows \d+ to \d+ of 'train' in blocks of \d+: gives other images",
            "crashing_at_the_end": "rows \\d+ to (199|39) of '.*raises IndexError",
        },
        "two_readers_do_not_disturb_each_other": {"cursor": "read by two at the same time, rows 0 to 63 of 'train'"},
        "chosen_rows_are_the_rows_of_those_numbers": {
            "chosen": "asked for the rows \\[0, 3, 4, .*gives other rows",
            "one_chosen": "asked for the rows \\[\\d+\\] of 'train'.*gives other rows",
        },
        "splits_are_what_it_says": {
            "any_split": "asked for split 'test', which splits\\(\\) lacks: opens it",
            "no_train": "\\('test',\\)",
        },
        "test_images_are_not_those_of_training": {
            "test_is_train": "has 40 of 40 images that were read in 'train'",
            "test_in_train": "has 40 of 40 images that were read in 'train'",
        },
        "it_is_the_same_in_another_process": {
            "hashed": "in rows 0 to 49 of 'train': differs in another process",
            "listed": "in rows 0 to 49 of 'train': differs in another process",
        },
    },
    Flat: {
        "it_takes_the_images": {"refuses": "given images of 8×8 .*raises GridError"},
        "features_are_finite_vectors": {
            "nan": "not finite",
            "nan_of_black": "not finite",
            "float64": "float64",
            "one_row": "\\(1, 64\\)",
            "writes": "modifies the images",
            "global": "global generator of torch",
        },
        "an_image_does_not_depend_on_its_batch": {
            "batch": "in batches of \\[1, .*gives features that differ",
            "large_batch": "given the 6 images 14 times in one batch: gives features that differ",
            "logits": "gives class scores that differ",
            "spatial": "gives spatial features that differ",
        },
        "memory_may_be_in_any_order": {"view": "given images that are not contiguous: raises RuntimeError"},
        "different_images_have_different_features": {
            "constant": "gives all of them the same features",
            "random": "given 8 pictures twice: gives features that differ",
        },
        "only_inception_is_called_fid": {
            "fid": "gives 'fid'",
            "unnamed": "gives an empty one",
            "nameless": "names \\['features'\\]",
        },
        "what_it_learns_is_a_function_of_data_and_seed": {"fit": "learns another 'drawn'"},
        "a_part_that_learns_nothing_says_so": {"silent": "but learns is False"},
        "it_is_the_same_in_another_process": {
            "hashed": "in what it learns: differs in another process",
            "projected": "in the features of images: differs in another process",
        },
    },
    Bent: {
        "its_sizes_are_those_of_the_images": {"count": "given a grid of 3×4, .* weights where there are"},
        "a_new_model_is_a_function_of_its_seed": {
            "seedless": "created with another seed: has the same weights",
            "global": "created with seed 1: .*global generator of torch",
        },
        "it_is_the_same_in_another_process": {"hashed": "in the weights drawn from seed 1: differs in another process"},
        "it_says_what_it_expects_at_every_step": {
            "shape": "on a grid of 3×4: returns logits \\(3, 12, 12\\)",
            "one_size": "on a grid of 17×16: raises AssertionError",
        },
        "it_sees_the_tokens_before_a_step_and_no_others": {
            "peeking": "given other tokens from step \\d+ on, on a grid of 3×4: gives other logits",
            "blind": "given another token at step 0, on a grid of 3×4: gives the same logits",
            "sees_256": "another token at step 0, on a grid of 17×16: gives the same logits at the last step, 271",
        },
        "the_order_matters": {"orderless": "given the same tokens in the reversed order: gives the same logits"},
        "a_sample_does_not_depend_on_its_batch": {
            "batch": "given a sample alone: gives logits",
            "first_order": "given a sample alone: gives logits",
        },
        "inputs_stay_as_they_are_and_may_be_views": {
            "writes": "modifies tokens, labels or orders",
            "views": "that are not contiguous: raises RuntimeError",
            "eval_draws": "in eval mode: draws from the global generator of torch",
        },
        "it_works_in_bfloat16": {"float32": "with weights in bfloat16: raises RuntimeError"},
        "the_class_matters_unless_it_is_dropped": {
            "classless": "given another class: gives the same logits",
            "undropped": "given another class that is dropped: gives other logits",
        },
        "checkpointing_gives_the_same_gradients": {"detached": "with checkpointing: has a gradient of"},
        "it_learns": {"unused": "has no gradient of \\['spare'\\]", "frozen": "has no gradient of \\['tokens', 'places'\\]"},
        "dropout_acts_in_training_alone": {
            "always": "in eval mode: gives other logits the second time",
            "never": "with attention_dropout = 0.5: gives the same logits in training",
        },
        "masks_of_attention_weights_come_from_the_samples_seeds": {"unseeded": "and the same seeds: draws other masks"},
        "it_decodes_what_forward_computes": {
            "stale": "decoding a batch of 1 with attention plain, guidance: none: gives logits that are off",
            "unguided": "guidance: constant: gives logits that are off",
        },
        "restored_and_loaded_models_are_the_same": {
            "restored": "restored from its state dict: gives other logits",
            "training": "loaded from a .safetensors: is in training mode",
        },
        "weights_that_do_not_fit_are_refused": {"lenient": "restored from weights of another codebook: accepts them"},
        "merging_positions_keeps_the_logits_or_is_refused": {"merged": "with its positions merged: gives logits"},
        "its_costs_grow_with_the_work": {"flat": "asked for step_flops of more and more work"},
        "it_is_sampled_in_what_it_says": {"silent": "accepts it, although it is not in precisions or kv_caches"},
        "it_takes_its_own_schedule": {"schedule": "given its default schedule"},
        "it_can_be_rehearsed": {"rehearsed": "rehearsed: still has weights"},
    },
    Lines: {
        "it_says_where_data_goes": {"mute": "asked whom it sends to: raises PluginError: .*sends to ''"},
        "it_takes_numbers_and_pictures": {
            "returns": "raises PluginError: .*opens object; it must open an OpenTracker",
            "slashes": "in a thread of its own: raises (FileNotFound|NotADirectory)Error",
            "main_thread": "raises ValueError: signal only works in main thread",
            "global": "global generator of random",
            "forgets": r"shows \[\(1, 0.25\), \(3, 0.75\)\] as train/loss",
            "rounds": "as train/loss.\nEach step is shown once",
            "grey": "raises AssertionError",
            "colour": "raises AssertionError",
        },
        "it_takes_what_it_is_told_of_a_single_step": {"buffered": r"and closed: shows \[\] as train/loss"},
        "it_may_be_told_nothing": {"empty": "closed at once: raises IndexError"},
        "numbers_need_not_be_finite": {"finite": "told .*nan.*: raises ValueError"},
        "what_it_is_given_stays_as_it_is": {
            "writes_numbers": "told numbers: changes them",
            "writes_image": "shown a picture: modifies it",
        },
        "an_interrupted_training_goes_on": {
            "new_folder": "after an interruption at step 6: raises FileExistsError",
            "twice": r"at step 6: shows .*\(4, 1.0\), \(5, 1.25\), \(6, 1.5\), \(4, 1.0\)",
            "cut_off": r"at step 6: shows \[\(4, 1.0\)",
        },
        "it_stays_in_its_folder": {
            "working_folder": r"told of a step: writes \['stray'\] outside its folder",
            "beside": r"told of a step: writes \['stray'\] outside its folder",
        },
        "nothing_keeps_the_process_when_it_is_closed": {"undead": r"leaves threads that keep the process: \['undead'\]"},
    },
}

MUTANTS = [
    Mutant(Nameless(name="another"), "it_can_be_named_in_a_recipe", "its class is called 'nameless'"),
    Mutant(Lenient(), "settings_are_frozen_and_unknown_ones_refused", "with the setting no_such_setting: accepts it"),
    Mutant(Bare(), "it_is_documented", "the documentation of its settings: lacks \\['setting'\\]"),
    Mutant(Fickle(), "its_identity_is_json_and_stable", "asked for its identity twice"),
    Mutant(Mumbling(), "it_says_where_it_cannot_work", "on cuda in float32: capability returns ''"),
    Mutant(Heavy(), "it_is_light_to_import", "imports PIL"),
    *(
        Mutant(cls(fault=fault), test, words)
        for cls, tests in FAULTY.items()
        for test, faults in tests.items()
        for fault, words in faults.items()
    ),
]
SETTINGS = {
    "permutation_schedules": {"falls": True},
    "tokenizers": {"info": GREY},
    "feature_extractors": {"info": GREY},
    "trackers": {"tracked": tracked},
}
"""Attributes of the suites, by kind."""
