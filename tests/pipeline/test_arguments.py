"""What callers hand to ``plan`` and ``run`` besides a recipe: one name is no list of letters, and what is none of it is refused."""

from __future__ import annotations

import pytest

import rarkit
from rarkit.errors import CapabilityError, RecipeError, StoreError, UserError
from rarkit.trackers.consent import _ALLOWED, allowing


def again(finished, **arguments):
    arguments = {"store": finished.plan.store.url, "runs": finished.folder.parent, "device": "cpu", "quiet": True} | arguments
    return rarkit.run(finished.plan.recipe, **arguments)


def forced(finished, force):
    return [stage.name for stage in rarkit.plan(finished.plan.recipe, finished.plan.store.url, force=force).stages if stage.forced]


@pytest.mark.parametrize(
    "force", ["train", ["train"], ("train",), {"train"}, iter(["train"])], ids=["name", "list", "tuple", "set", "iterator"]
)
def test_stages_are_listed_or_one_is_named(finished, force):
    assert forced(finished, force) == ["train"]


@pytest.mark.parametrize("force", [None, 3, {"train": True}, [3], b"train"], ids=repr)
def test_what_lists_no_stages_is_refused(finished, force):
    with pytest.raises(UserError, match=r"force is .*; pass a list of names"):
        forced(finished, force)


@pytest.mark.parametrize("option", ["start", "until"])
@pytest.mark.parametrize("stage", ["trian", ["train"], ("train",), "", True], ids=repr)
def test_a_first_or_last_stage_is_one_name(finished, option, stage):
    with pytest.raises(RecipeError, match=r"this recipe has no such stage. It has: fit, tokenize, train"):
        rarkit.plan(finished.plan.recipe, finished.plan.store.url, **{option: stage})


def test_trackers_are_listed_or_one_is_named():
    with allowing("wandb"), allowing(["tensorboard"]):
        assert _ALLOWED.get() == {"wandb", "tensorboard"}
    with pytest.raises(UserError, match="allow_tracking is True; pass a list of names"), allowing(True):
        pass


@pytest.mark.parametrize("place", [None, 3, b"store"], ids=repr)
def test_a_store_and_a_folder_of_runs_are_places(finished, place):
    for call in (rarkit.plan, rarkit.run):
        with pytest.raises(StoreError, match=r"found .* where a store is needed"):
            call(finished.plan.recipe, place)
    with pytest.raises(UserError, match=r"runs is .*; pass the path of a file or folder"):
        again(finished, runs=place)


@pytest.mark.parametrize("device", ["gpu", "cuda:first", "", None, 0], ids=repr)
def test_an_unknown_device_is_refused_where_nothing_is_to_be_computed(finished, device):
    assert again(finished).did_nothing
    with pytest.raises(CapabilityError, match=r"device .* cannot be used here .* Use cpu(, cuda)? or auto\."):
        again(finished, device=device)


def test_settings_to_unset_are_listed_or_one_is_named(finished):
    with pytest.raises(UserError, match=r"--unset top_k: the recipe's .* sets no 'top_k'"):
        rarkit.sample(finished, [3], unset="top_k", device="cpu")
