"""A picture of some of somebody's images, as a model will see them.

Shape letters: N images, H, W, C height, width, channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarkit.datasets.encoded import EncodedDataset
from rarkit.datasets.preparation import Preparation
from rarkit.datasets.transparency import WHITE
from rarkit.files.writable import check_writable, writing
from rarkit.proposal.all_images import AllImages
from rarkit.proposal.look import data_of
from rarkit.proposal.proposal import Proposal
from rarkit.proposal.survey import Survey, dataset_of
from rarkit.rendering.pictures import captioned
from rarkit.rendering.png import write_png

MOST_CLASSES, ACROSS, OF_ONE_CLASS = 10, 10, 64
FEWEST = 3
"""Images of a class that is shown."""


def check_sheet(path: str) -> None:
    """Refuses a place where no picture can be written. Raises UserError, or StoreError."""
    check_writable(path, (".png",), folder=False)


def write_sheet(survey: Survey, proposal: Proposal, path: str) -> None:
    """Writes a picture of images that were looked at, cropped as the recipe says, with the classes as captions.

    Raises:
        StoreError: it cannot be written.
    """
    chosen, captions = _chosen(survey)
    images_NHWC = _cropped(survey, proposal, chosen)
    with writing(path):
        write_png(captioned(images_NHWC, captions), Path(path))


def _chosen(survey: Survey) -> tuple[list[int], list[str]]:
    """Positions among what was looked at, equally many of each class, and the classes' names."""
    by_class: dict[int, list[int]] = {}
    for position, look in enumerate(survey.looks):
        if not look.fault:
            by_class.setdefault(look.label, []).append(position)
    labels = [label for label in sorted(by_class) if len(by_class[label]) >= FEWEST][:MOST_CLASSES]
    if len(labels) < 2:
        every = sorted(position for positions in by_class.values() for position in positions)
        caption = survey.class_names[next(iter(by_class))] if len(by_class) == 1 else "images that were looked at"
        return every[:OF_ONE_CLASS], [caption]
    each = min(ACROSS, min(len(by_class[label]) for label in labels))
    return [position for label in labels for position in by_class[label][:each]], [survey.class_names[label] for label in labels]


def _cropped(survey: Survey, proposal: Proposal, chosen: list[int]) -> NDArray[np.uint8]:
    part = dataset_of(survey.layout)
    if not isinstance(part, EncodedDataset):
        crops = [survey.looks[position].crop_HWC for position in chosen]
        return np.stack([crop_HWC for crop_HWC in crops if crop_HWC is not None])
    background = tuple(proposal.as_recipe()["dataset"].get("background", WHITE))
    files, rows_N = AllImages(part), survey.rows_N[chosen]
    # Images are read in the order of their rows.
    order_N = np.argsort(rows_N)
    views: dict[int, NDArray[np.uint8]] = {}
    for place, image in zip(order_N.tolist(), files.encoded(rows_N[order_N]), strict=True):
        prepare = Preparation(proposal.size.height, exif=survey.looks[chosen[place]].turned, background=background)
        views[place] = prepare(data_of(files.filesystem, image), image.name)[0][0]
    return np.stack([views[place] for place in range(len(chosen))])
