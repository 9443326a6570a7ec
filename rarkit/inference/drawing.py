"""Sampled images, with everything needed to caption, animate and reproduce them.

Shape letters: N images, H, W, C height, width and channels of an image, L tokens per image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.evaluation.inception_score import taking_turns
from rarkit.files.npz import write_npz
from rarkit.files.writable import check_writable, is_folder, writing
from rarkit.printable import printable
from rarkit.registry.inputs import place as place_of
from rarkit.rendering.animation import write_gif
from rarkit.rendering.notebook import picture, shown
from rarkit.rendering.pictures import captioned
from rarkit.rendering.png import write_png, write_pngs
from rarkit.sampling.settings import SampleSettings

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN_CLASSES, SHOWN_EACH = 16, 8
"""Of a drawing, what notebooks show."""


@final
@dataclass(frozen=True)
class Drawing:
    """The result of ``rarkit.sample`` and ``Pipeline.sample``: images of each class, class by class, and the settings used."""

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    tokens_NL: NDArray[np.int64]
    """In raster order."""
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    """The names of ``classes``, in the same order."""
    per_class: int
    grid: tuple[int, int]
    """Height and width of the token grid."""
    order_L: NDArray[np.int64]
    """The raster index visited at each step."""
    seed: int
    scan_order: dict[str, Any]
    """The settings of the scan order; empty if the order was given as an array."""
    settings: SampleSettings

    @property
    def images(self) -> list[Image]:
        """The images for Pillow, in the same order."""
        from PIL import Image

        return [Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC) for image_HWC in self.images_NHWC]

    def __repr__(self) -> str:
        numbers = (len(self.images_NHWC), "image", "images"), (len(self.classes), "class", "classes")
        about = " of ".join(f"{count} {one if count == 1 else several}" for count, one, several in numbers)
        return f"Drawing({about}, seed={self.seed}, scan_order={self.scan_order.get('name')!r})"

    def _repr_html_(self) -> str:
        """The first images of the first classes, for notebooks."""
        classes, each = min(len(self.classes), SHOWN_CLASSES), min(self.per_class, SHOWN_EACH)
        row_N = (np.arange(classes)[:, None] * self.per_class + np.arange(each)).ravel()
        names = [f"{name} ({label})" for label, name in zip(self.classes, self.class_names, strict=True)]
        below = "" if len(row_N) == len(self.images_NHWC) else f"{len(row_N)} of {len(self.images_NHWC)} images"
        drawn = picture(captioned(self.images_NHWC[row_N], list(map(printable, names[:classes]))), f"images of {', '.join(names)}")
        return str(drawn + shown(below))

    def save(self, path: str | os.PathLike[str]) -> list[str]:
        """Writes the images. Existing files are replaced atomically.

        Args:
            path: ``.png`` for a grid with captions; ``.npz`` for ``arr_0`` (N, H, W, 3) uint8 and ``arr_1``, the labels, in the
                order of ``taking_turns``, because evaluators score consecutive images together; a folder for one PNG per image.

        Returns:
            The paths of the files written.

        Raises:
            UserError: the path has another suffix.
            StoreError: the path cannot be written.
        """
        place = place_of("path", path)
        check_writable(place)
        with writing(place):
            if is_folder(place):
                return [str(file) for file in write_pngs(self.images_NHWC, self.classes, self.class_names, Path(place))]
            if place.lower().endswith(".npz"):
                turn_N = taking_turns(self.labels_N)
                write_npz([self.images_NHWC[turn_N]], self.labels_N[turn_N], Path(place))
            else:
                write_png(captioned(self.images_NHWC, self.class_names), Path(place))
        return [place]

    def animate(self, path: str | os.PathLike[str]) -> list[str]:
        """Writes a ``.gif`` in which the images appear token by token along the scan order.

        Each cell appears as in the finished image; cells still to come are grey. Returns and errors are those of ``save``.
        """
        place = place_of("path", path)
        check_writable(place, (".gif",), folder=False)
        with writing(place):
            write_gif(self.images_NHWC, self.class_names, self.grid, self.order_L, Path(place))
        return [place]
