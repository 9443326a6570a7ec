"""The pictures of trainings, in ``runs/<recipe>/previews/``.

Shape letters: M samples, H, W, C height, width and channels of an image or picture.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import RarkitWarning

FOLDER, MAIN = "previews", "train"
_NAME = re.compile(r"(?:([a-z]+)-)?step-(\d{6,10})\.png")


def show_preview(
    folder: Path, stage: str, step: int, every: int, images_MHWC: NDArray[np.uint8], captions: Sequence[str]
) -> NDArray[np.uint8]:
    """Writes the picture of a step, and removes those that an earlier training of the stage left.

    Args:
        folder: that of the run.
        stage: whose training it is; names of pictures begin with it, but those of ``train``.
        step: steps taken.
        every: steps between pictures.
        images_MHWC: uint8 levels of 1 or 3 channels, as many of each caption.
        captions: one for each row.

    Returns:
        The picture, (H, W, 3) uint8. A warning says where it cannot be written.
    """
    from rarkit.rendering.pictures import captioned
    from rarkit.rendering.png import write_png

    picture = captioned(images_MHWC, captions)
    try:
        for path in sorted((folder / FOLDER).glob("*step-*.png")):
            name = _NAME.fullmatch(path.name)
            if name is not None and (name[1] or MAIN) == stage and (int(name[2]) > step or int(name[2]) % every):
                path.unlink(missing_ok=True)
        write_png(picture, folder / FOLDER / f"{'' if stage == MAIN else f'{stage}-'}step-{step:06d}.png")
    except OSError as error:
        # It decides nothing, and is no reason to end a training.
        warnings.warn(RarkitWarning(f"the preview of step {step:,} cannot be written to {folder} ({error})."), stacklevel=2)
    return np.asarray(picture)
