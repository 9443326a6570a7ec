"""The pictures of a training, in ``runs/<recipe>/previews/``.

Shape letters: M samples, H, W, C height, width and channels of an image or picture.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rarkit.pipeline.run_folder import writing_results

FOLDER = "previews"
_NAME = re.compile(r"step-(\d{6,10})\.png")


def show_preview(
    folder: Path, every: int | None, step: int, images_MHWC: NDArray[np.uint8], captions: Sequence[str]
) -> NDArray[np.uint8]:
    """Writes the picture of a step, and removes those that an earlier training left.

    Args:
        folder: that of the run.
        every: steps between pictures.
        step: steps taken.
        images_MHWC: uint8 levels of 1 or 3 channels, as many of each caption.
        captions: one for each row.

    Returns:
        The picture, (H, W, 3) uint8.

    Raises:
        StoreError: it cannot be written.
    """
    from rarkit.rendering.pictures import captioned
    from rarkit.rendering.png import write_png

    with writing_results(folder):
        for path in sorted((folder / FOLDER).glob("step-*.png")):
            name = _NAME.fullmatch(path.name)
            if name is not None and (int(name[1]) > step or int(name[1]) % (every or 1)):
                path.unlink(missing_ok=True)
        picture = captioned(images_MHWC, captions)
        write_png(picture, folder / FOLDER / f"step-{step:06d}.png")
    return np.asarray(picture)
