"""Images that a model drew, with all that is needed to caption, animate and repeat them.

Shape letters: N images, H, W, C their height, width and channels, L tokens of an image.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.files.npz import write_npz
from rarkit.files.writable import check_writable, is_folder, writing
from rarkit.rendering.animation import write_gif
from rarkit.rendering.pictures import captioned
from rarkit.rendering.png import write_png, write_pngs
from rarkit.sampling.settings import SampleSettings


@final
@dataclass(frozen=True)
class Drawing:
    """What ``rarkit.sample`` returns: images class by class, ``per_class`` of each, and what they were drawn with."""

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    tokens_NL: NDArray[np.int64]
    """In raster order."""
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    """Of ``classes``, in their order."""
    per_class: int
    grid: tuple[int, int]
    """Height and width of the grid of tokens."""
    order_L: NDArray[np.int64]
    """The raster index visited at each step."""
    seed: int
    scan_order: dict[str, Any]
    settings: SampleSettings

    def save(self, path: str | os.PathLike[str]) -> list[str]:
        """Writes the images: ``.png`` a grid with captions, ``.npz`` ``arr_0`` (N, H, W, 3) uint8 and the labels, else a folder.

        Returns:
            The files that were written. What was there is replaced, each file whole or not at all.

        Raises:
            UserError: another suffix.
            StoreError: nothing can be written there.
        """
        place = os.fspath(path)
        check_writable(place)
        with writing(place):
            if is_folder(place):
                return [str(file) for file in write_pngs(self.images_NHWC, self.classes, self.class_names, Path(place))]
            if place.lower().endswith(".npz"):
                write_npz([self.images_NHWC], self.labels_N, Path(place))
            else:
                write_png(captioned(self.images_NHWC, self.class_names), Path(place))
        return [place]

    def animate(self, path: str | os.PathLike[str]) -> list[str]:
        """Writes a ``.gif`` in which the images appear token by token along the scan order.

        A cell shows what it shows in the finished image; cells that are not drawn yet are grey. Returns and raises as ``save``.
        """
        place = os.fspath(path)
        check_writable(place, (".gif",), folder=False)
        with writing(place):
            write_gif(self.images_NHWC, self.class_names, self.grid, self.order_L, Path(place))
        return [place]
