"""Parts as a script would define and register them, one of each kind: rarkit's own under other names."""

from __future__ import annotations

from typing import Literal

import rarkit
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.generated import Generated
from rarkit.features.classifier import Classifier
from rarkit.models.rar.family import RARFamily
from rarkit.permutation_schedules.linear import Linear
from rarkit.registry.kinds import TABLES
from rarkit.scan_orders.spiral import Spiral
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.trackers.tensorboard import TensorBoard


class OwnData(Generated):
    """Generated images."""

    name: Literal["own_data"] = "own_data"


class OwnTokenizer(PatchKMeans):
    """Patches."""

    name: Literal["own_tokenizer"] = "own_tokenizer"


class OwnOrder(Spiral):
    """A spiral."""

    name: Literal["own_order"] = "own_order"


class OwnSchedule(Linear):
    """Falls."""

    name: Literal["own_schedule"] = "own_schedule"


class OwnAttention(SDPA):
    """PyTorch's."""

    name: Literal["own_attention"] = "own_attention"


class OwnFamily(RARFamily):
    """RAR."""

    name: Literal["own_family"] = "own_family"


class OwnFeatures(Classifier):
    """A classifier's."""

    name: Literal["own_features"] = "own_features"


class OwnTracker(TensorBoard):
    """TensorBoard's."""

    name: Literal["own_tracker"] = "own_tracker"


OWN = {
    "dataset": OwnData,
    "tokenizer": OwnTokenizer,
    "scan_order": OwnOrder,
    "permutation_schedule": OwnSchedule,
    "attention": OwnAttention,
    "model": OwnFamily,
    "evaluate.features": OwnFeatures,
    "trackers": OwnTracker,
}
"""By recipe table."""
SETTINGS = ("dataset.height=4", "dataset.width=4", "dataset.channels=1", "dataset.train_images=60", "dataset.test_images=30")
SMALL = ("tokenizer.patch=2", "tokenizer.codes=5", "model.hidden_size=8", "model.depth=1", "model.num_heads=2")
NAMED = (
    f'{table}=[{{name="{part.part_name()}"}}]' if TABLES[table].many else f"{table}.name={part.part_name()}"
    for table, part in OWN.items()
)
OVERRIDES = [*NAMED, *SETTINGS, *SMALL, "evaluate.features.steps=3"]
"""That make a small recipe of all of them. Another name drops the other settings of a table."""


def run_and_draw(recipe: str, folder: str) -> None:
    """For another process: registers all, runs a recipe that has them, and samples from it."""
    for part in OWN.values():
        rarkit.register(part)
    run = rarkit.run(rarkit.load_recipe(recipe, OVERRIDES), f"{folder}/store", runs=f"{folder}/runs", device="cpu", quiet=True)
    print(run.folder)
