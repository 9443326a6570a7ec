"""``samples.npz``, written block by block: memory is bounded by a block, however many samples there are.

Shape letters: N samples, B of a block, H, W, C image height, width, channels.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray


def write_npz(blocks: Iterable[NDArray[np.uint8]], labels_N: NDArray[Any], path: Path) -> None:
    """Samples as the ADM evaluator reads them: ``arr_0`` uint8 NHWC with three channels, ``arr_1`` the labels.

    Args:
        blocks: images (B, H, W, C) uint8 with 1 or 3 channels, N in all and at least one; grey ones are repeated.
        labels_N: as many labels.
        path: what is there is replaced, once the new file is whole.
    """
    blocks = iter(blocks)
    first = next(blocks)
    partial = path.with_name(f".{path.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            shape = (len(labels_N), *first.shape[1:3], 3)
            npy.write_array_header_1_0(member, {"descr": npy.dtype_to_descr(first.dtype), "fortran_order": False, "shape": shape})
            written = 0
            for images_BHWC in itertools.chain([first], blocks):
                images = np.repeat(images_BHWC, 3, axis=-1) if images_BHWC.shape[-1] == 1 else images_BHWC
                assert images.shape[1:] == shape[1:], (images.shape, shape)
                member.write(np.ascontiguousarray(images).data)
                written += len(images)
            assert written == len(labels_N), (written, len(labels_N))
        with archive.open("arr_1.npy", "w") as member:
            npy.write_array(member, labels_N, allow_pickle=False)
    partial.replace(path)
