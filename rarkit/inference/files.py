"""Drawings as files: a grid with captions, a folder of images, or arrays."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import StoreError, UserError
from rarkit.files.npz_images import write_npz
from rarkit.rendering.pictures import WIDEST, grid_image, write_png

if TYPE_CHECKING:
    from PIL.Image import Image

    from rarkit.inference.drawing import Drawing

COLUMN_LABELS = 10
"""One image of each class: so many stand in one row, with their names above; more stand one below the other."""


def check_place(path: str, suffixes: tuple[str, ...] = (".png", ".npz"), *, folder: bool = True) -> None:
    """Refuses a place that ``write`` could not write to, before hours are spent on what goes there. Leaves nothing behind.

    Args:
        path: a file or, where ``folder`` allows it, a folder; what is not there yet counts as one if it has no suffix.
        suffixes: those that a file may have.
        folder: whether it may be a folder.

    Raises:
        UserError: another suffix, or a folder where a file is needed.
        StoreError: nothing can be written there.
    """
    suffix = os.path.splitext(path)[1].lower()
    is_folder = path.endswith(os.sep) or os.path.isdir(path) or suffix == ""
    if is_folder and suffix in suffixes and os.path.isdir(path):
        raise UserError(f"{path} is a folder, and its name ends like a file's: name another place")
    if (is_folder and not folder) or (not is_folder and suffix not in suffixes):
        or_folder = ", or a folder (a name without suffix, or with / at its end)" if folder else ""
        raise UserError(f"{path} cannot be written: it has to end in {' or '.join(suffixes)}{or_folder}")
    with writing(path):
        there = Path(path) if is_folder else Path(path).parent
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is no folder")
        with tempfile.TemporaryFile(dir=there):
            pass


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turns what the system says against writing there into an error of ours."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"{path} cannot be written ({reason}). Choose another place with -o, or make room for it.") from error


def write(drawing: Drawing, path: str) -> list[str]:
    """What ``Drawing.save`` does."""
    check_place(path)
    suffix = os.path.splitext(path)[1].lower()
    with writing(path):
        if os.path.isdir(path) or path.endswith(os.sep) or not suffix:
            return _write_folder(drawing, Path(path))
        if suffix == ".npz":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_npz([drawing.images_NHWC], drawing.labels_N, Path(path))
        else:
            write_png(captioned(drawing, drawing.images_NHWC), Path(path))
    return [path]


def captioned(drawing: Drawing, images_NHWC: NDArray[np.uint8], widest: int = WIDEST) -> Image:
    """The images in rows, one for each class, with the classes' names; those of a single class in a square under its name.

    Args:
        drawing: says which classes.
        images_NHWC: as many as it has.
        widest: images are made smaller where they would be wider than that together.
    """
    names = drawing.class_names
    if len(names) == 1:
        return grid_image(images_NHWC, title=names[0], widest=widest)
    if drawing.per_class == 1 and len(names) <= COLUMN_LABELS:
        return grid_image(images_NHWC, column_labels=names, widest=widest)
    return grid_image(images_NHWC, columns=drawing.per_class, row_labels=names, widest=widest)


def _write_folder(drawing: Drawing, folder: Path) -> list[str]:
    """One PNG an image: ``207-golden-retriever-0003.png`` is number 3 of class 207."""
    from PIL import Image

    written = []
    for place, image_HWC in enumerate(drawing.images_NHWC):
        which, number = divmod(place, drawing.per_class)
        name = re.sub(r"\W+", "-", drawing.class_names[which]).strip("-")
        path = folder / f"{drawing.classes[which]:03d}-{name}-{number:04d}.png"
        write_png(Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC), path)
        written.append(str(path))
    return written
