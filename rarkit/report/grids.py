"""The pictures of a run: its samples, the training images nearest to them, and what its tokenizer leaves of images.

Shape letters: N images, H, W, C their height, width and channels, Q images that neighbours were looked for, K neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.output import StageOutput
from rarkit.errors import IncompleteError
from rarkit.recipe.experiment import Experiment
from rarkit.rendering.figures import PictureGrid
from rarkit.stages.evaluate import nearest_images
from rarkit.stages.nearest_training_images import ARRAYS, HELD_OUT, SAMPLES
from rarkit.stages.shown_images import SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS

RECONSTRUCTIONS = "reconstructions"
SHOWN_PER_CLASS = 10
SHOWN_CLASSES = 10
RECONSTRUCTIONS_IN_A_ROW = 10


def picture_grids(experiment: Experiment, outputs: Mapping[str, StageOutput]) -> dict[str, PictureGrid]:
    """The grids of pictures that the outputs have, by name."""
    grids, recipe = {}, experiment.recipe
    if "sample" in outputs and recipe.sample is not None:
        names, per_class, classes = experiment.images.class_names, recipe.sample.per_class, experiment.sample_classes
        shown = np.unique(np.linspace(0, len(classes) - 1, SHOWN_CLASSES).round().astype(int))
        count = min(SHOWN_PER_CLASS, per_class)
        images = [outputs["sample"].read_array("images", place * per_class, place * per_class + count) for place in shown]
        grids[SAMPLES] = PictureGrid(
            title="Samples",
            caption=f"{_counted(count, len(shown), len(classes))}, in the order in which they were drawn: nothing was selected.",
            images_NHWC=np.concatenate(images),
            columns=count,
            row_labels=tuple(names[classes[place]] for place in shown),
        )
    if "evaluate" in outputs:
        grids |= _nearest(experiment, outputs["evaluate"])
    # Both have the same, if the recipe has both stages.
    for stage in ("reference", "fit"):
        if RECONSTRUCTIONS not in grids and stage in outputs and SHOWN_ORIGINALS in outputs[stage].begun().arrays:
            originals, decoded = (outputs[stage].read_array(name) for name in (SHOWN_ORIGINALS, SHOWN_RECONSTRUCTIONS))
            which = "Held-out images" if experiment.held_out_split == "test" else "Training images (the dataset has no others)"
            grids[RECONSTRUCTIONS] = reconstructions(originals, decoded, which)
    return grids


def _counted(count: int, shown: int, classes: int) -> str:
    samples = "1 sample" if count == 1 else f"{count} samples"
    if classes == 1:
        return samples
    return f"{samples} of each class" if shown == classes else f"{samples} of each of {shown} among the {classes:,} classes"


def reconstructions(originals_NHWC: NDArray[np.uint8], decoded_NHWC: NDArray[np.uint8], which: str) -> PictureGrid:
    """Rows of images (``which``, for the caption), each above what its tokens decode to; those that fill no row are left out."""
    columns = min(len(originals_NHWC), RECONSTRUCTIONS_IN_A_ROW)
    starts = range(0, len(originals_NHWC) - columns + 1, columns)
    rows = [images_NHWC[start : start + columns] for start in starts for images_NHWC in (originals_NHWC, decoded_NHWC)]
    return PictureGrid(
        title="Reconstructions",
        caption=f"{which}, drawn at random, and below each what the tokenizer decodes from its tokens: samples cannot be more "
        "faithful.",
        images_NHWC=np.concatenate(rows),
        columns=columns,
        row_labels=("image", "decoded") * len(starts),
    )


def _nearest(experiment: Experiment, output: StageOutput) -> dict[str, PictureGrid]:
    """Samples and held-out images, each above the training images nearest to it."""
    settings, nearest = experiment.recipe.evaluate, nearest_images(output)
    if nearest is None or settings is None:
        return {}
    distances = {name: [near_K[0] for near_K in distances_QK] for name, distances_QK in nearest.distances.items()}
    medians = {name: f"{np.median(nearest_Q):.3g}" for name, nearest_Q in distances.items()}
    where = f"all {nearest.training_images:,} training images"
    if nearest.of_the_classes:
        where = f"{nearest.searched:,} training images of these classes, of {nearest.training_images:,} in all"
    beside = f", and {medians[HELD_OUT]} for the held-out images below" if HELD_OUT in medians else ""
    titles = {SAMPLES: "Samples and their nearest training images", HELD_OUT: "Held-out images and their nearest training images"}
    captions = {
        SAMPLES: "Is it copying? Above each sample is its distance to the nearest training image, in the features of "
        f"{settings.features.name!r}. The median is {medians[SAMPLES]}{beside}. A copy would be near 0; samples that stay as far "
        f"from the training images as held-out images do are not copies. Searched: {where}.",
        HELD_OUT: "The yardstick: the same for held-out images, which no model trained on these data can have copied.",
    }
    firsts = {SAMPLES: "sample", HELD_OUT: "held out"}
    grids = {}
    for name, nearest_Q in distances.items():
        images_QKHWC = output.read_array(f"{ARRAYS}{name}")
        if images_QKHWC.ndim != 5 or len(images_QKHWC) != len(nearest_Q):
            raise IncompleteError(f"{ARRAYS}{name} of {output} is not of as many images as distances. {output.cure}")
        grids[f"nearest to {name}"] = PictureGrid(
            title=titles[name],
            caption=captions[name],
            images_NHWC=np.concatenate(list(images_QKHWC.swapaxes(0, 1))),
            columns=len(images_QKHWC),
            row_labels=(firsts[name], "nearest", "second", "third")[: images_QKHWC.shape[1]],
            column_labels=tuple(f"{distance:.3g}" for distance in nearest_Q),
        )
    return grids
