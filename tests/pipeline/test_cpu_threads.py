"""Small recipes get one thread, others all of them; the number is restored afterwards."""

from __future__ import annotations

import torch

from rarkit import load_recipe
from rarkit.pipeline.cpu_threads import is_small, sensible_threads
from rarkit.recipe.experiment import resolve


def test_the_digits_are_small_and_imagenet_is_not(digits_recipe):
    assert is_small(resolve(load_recipe(digits_recipe)))
    assert not is_small(resolve(load_recipe(digits_recipe, ["train.batch_size=4096"])))
    assert not is_small(resolve(load_recipe(digits_recipe.replace("digits.toml", "rar_l.toml"))))
    assert not is_small(resolve(load_recipe(digits_recipe.replace("digits.toml", "rar_l_released.toml"))))


def test_threads_are_limited_and_restored(digits_recipe):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for overrides, expected in ([], 1), (["train.batch_size=4096"], 3):
            with sensible_threads(resolve(load_recipe(digits_recipe, overrides)), "cpu"):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
