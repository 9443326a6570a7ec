"""Datasets, and the pieces for one whose images are encoded (JPEG, PNG, …). Importing this loads neither Pillow nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names

if TYPE_CHECKING:
    from rarkit.datasets.decoding import EncodedImage as EncodedImage
    from rarkit.datasets.decoding import Source as Source
    from rarkit.datasets.encoded import EncodedDataset as EncodedDataset
    from rarkit.datasets.image_bounds import LARGEST_FILE as LARGEST_FILE
    from rarkit.datasets.notices import notify as notify
    from rarkit.datasets.notices import some_of as some_of
    from rarkit.datasets.splits import check_apart as check_apart
    from rarkit.datasets.splits import held_apart as held_apart
    from rarkit.files.identities import file_identity as file_identity
    from rarkit.files.locations import filesystem_of as filesystem_of
    from rarkit.files.locations import reaching as reaching
    from rarkit.images import Split as Split

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rarkit.datasets.decoding": ["EncodedImage", "Source"],
        "rarkit.datasets.encoded": ["EncodedDataset"],
        "rarkit.datasets.image_bounds": ["LARGEST_FILE"],
        "rarkit.datasets.notices": ["notify", "some_of"],
        "rarkit.datasets.splits": ["check_apart", "held_apart"],
        "rarkit.files.identities": ["file_identity"],
        "rarkit.files.locations": ["filesystem_of", "reaching"],
        "rarkit.images": ["Split"],
    },
)
