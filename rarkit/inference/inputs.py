"""What callers hand to a loaded model: images, tokens, labels and orders in the forms that people have them in.

Shape letters: N images, H, W, C height, width, channels of an image, L tokens of an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.errors import GridError, UserError
from rarkit.images import ImageInfo
from rarkit.recipe.classes import find_classes
from rarkit.registry.inputs import given
from rarkit.registry.loader import parts
from rarkit.registry.shown import shown
from rarkit.scan_orders.base import ScanOrder

MODES = {1: "L", 3: "RGB"}
"""Pillow's mode by the number of channels."""
Images = Any
"""An array or tensor (N, H, W, C) uint8, a Pillow image, or a sequence of Pillow images."""
Labels = ArrayLike | Sequence[str | int] | str
"""One class for each image, by label or name; a single one is that of all images."""
Order = ArrayLike | ScanOrder | str | None
"""A scan order, the name of one, or the raster index visited at each step, (L,); None for the model's own."""


def images_of(images: Any, info: ImageInfo) -> NDArray[np.uint8]:
    """Images as (N, H, W, C) uint8.

    Args:
        images: an array or tensor (N, H, W, C) uint8, a Pillow image, or a sequence of them.
        info: what the images of the model are like.

    Raises:
        UserError: they are something else, or of another size. Nothing is resized here.
    """
    from PIL.Image import Image

    expected = (info.height, info.width, info.channels)
    if isinstance(images, Image):
        images = [images]
    if isinstance(images, (list, tuple)) and images and all(isinstance(image, Image) for image in images):
        images_NHWC = np.stack([_pixels(image, info) for image in images])
    else:
        images_NHWC = _array(images)
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4:
        raise UserError(
            f"the images are {images_NHWC.dtype} {images_NHWC.shape}; pass uint8 of 0 to 255 with shape (N, {expected[0]}, "
            f"{expected[1]}, {expected[2]}), or Pillow images"
        )
    if images_NHWC.shape[1:] != expected:
        height, width, channels = images_NHWC.shape[1:]
        raise UserError(
            f"the images are {height}×{width} with {channels} channels, but the model's are {expected[0]}×{expected[1]} with "
            f"{expected[2]}. Resize or convert them first, as the dataset of the recipe does."
        )
    return images_NHWC


def _pixels(image: Any, info: ImageInfo) -> NDArray[np.uint8]:
    mode = MODES[info.channels]
    # Colours that become grey, or transparency that goes, would be another image.
    if image.mode != mode:
        raise UserError(f"a Pillow image has mode {image.mode!r}, but the model's have {mode!r}: pass image.convert({mode!r})")
    if image.size != (info.width, info.height):
        raise UserError(
            f"a Pillow image is {image.height}×{image.width}, but the model's are {info.height}×{info.width}. Resize it first."
        )
    return np.asarray(image, dtype=np.uint8).reshape(info.height, info.width, info.channels)


def tokens_of(tokens: Any, grid: tuple[int, int], codebook_size: int) -> NDArray[np.int64]:
    """Tokens in raster order as rows, (N, L) int64.

    Args:
        tokens: an array or tensor of whole numbers: rows (N, L), or grids (N, height, width).
        grid: height and width of the model's grid.
        codebook_size: V, the number of codes.

    Raises:
        UserError: they have another shape or dtype, or one is not a code.
    """
    array, (height, width) = _array(tokens), grid
    if array.ndim < 2 or array.shape[1:] not in ((height, width), (height * width,)) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"the tokens are {array.dtype} {array.shape}; pass whole numbers with shape (N, {height * width}) or "
            f"(N, {height}, {width}), in raster order"
        )
    wrong = array[(array < 0) | (array >= codebook_size)]
    if wrong.size:
        raise UserError(f"token {wrong[0]} is not one of the model's codes, 0 to {codebook_size - 1}")
    return array.reshape(len(array), height * width).astype(np.int64)


def labels_of(labels: Any, count: int, names: tuple[str, ...]) -> NDArray[np.int64]:
    """One class for each image, (N,) int64.

    Args:
        labels: labels or names, one for each image; a single one is that of all.
        count: N, the number of images.
        names: of the classes, by label.

    Raises:
        UserError: there is another number of them, or one is no class.
    """
    if hasattr(labels, "detach") or isinstance(labels, np.ndarray):
        array = _array(labels)
        labels = array.tolist() if array.dtype.kind in "UO" or array.ndim == 0 else array
    elif isinstance(labels, Iterable) and not isinstance(labels, str):
        # Only once: an iterator would have fewer the second time.
        labels = list(labels)
    if isinstance(labels, (str, int, np.integer)) and not isinstance(labels, bool):
        labels = [labels] * count
    if isinstance(labels, list) and any(isinstance(label, bool | np.bool_) for label in labels):
        raise UserError(f"the labels are {shown(labels)}; True and False are no classes. Pass labels or names.")
    if isinstance(labels, list) and any(isinstance(label, str) for label in labels):
        labels = [find_classes([label], names)[0] if isinstance(label, str) else label for label in labels]
    labels_N = _array(labels)
    if labels_N.shape != (count,) or (count and not np.issubdtype(labels_N.dtype, np.integer)):
        raise UserError(f"there are {count} images, but labels {labels_N.dtype} {labels_N.shape}: pass one class for each")
    wrong = labels_N[(labels_N < 0) | (labels_N >= len(names))]
    if wrong.size:
        raise UserError(f"label {wrong[0]} is not one of the model's classes, 0 to {len(names) - 1}")
    return labels_N.astype(np.int64)


def order_of(order: Any, own: ScanOrder, grid: tuple[int, int]) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """The raster index visited at each step, (L,) int64, and the settings of the scan order, which an array has not.

    Args:
        order: a scan order, the name of one, or an array (L,); None for the model's own.
        own: the model's own.
        grid: height and width.

    Raises:
        UserError: there is no scan order of this name, or the class of one was given.
        GridError: the order does not support the grid, or does not visit each cell once.
    """
    chosen = own if order is None else parts().scan_orders[order].model_validate({}) if isinstance(order, str) else order
    if isinstance(chosen, ScanOrder):
        return chosen.order(*grid), chosen.model_dump(mode="json")
    if isinstance(chosen, type) and issubclass(chosen, ScanOrder):
        raise UserError(f"the order is the class {chosen.__name__}; pass a scan order: {chosen.__name__}(), with settings if any")
    order_L, length = _array(chosen), grid[0] * grid[1]
    if order_L.shape != (length,) or not np.issubdtype(order_L.dtype, np.integer):
        raise GridError(
            f"the order is {given(chosen)}; pass a scan order, the name of one, or what its order(height, width) returns: "
            f"({length},) int64"
        )
    if not np.array_equal(np.sort(order_L), np.arange(length)):
        raise GridError(
            f"the order does not visit each of the {length} cells exactly once; pass each number from 0 to {length - 1} once, a "
            "scan order, or the name of one"
        )
    return order_L.astype(np.int64, order="C"), {}


def _array(values: Any) -> NDArray[Any]:
    """Anything as an array; tensors come from wherever they are."""
    if hasattr(values, "detach"):
        try:
            values = values.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            raise UserError(f"found {given(values)}, which has no like in NumPy. Pass an array or a dense tensor.") from error
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UserError("the values are not an array: their lengths differ. Pass as many for each image.") from error
