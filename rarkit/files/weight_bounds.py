"""What a file of weights claims, checked before it is believed: headers, compressed parts, tensors that repeat what is stored."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 2**24
"""Bytes of the header of a safetensors file: some 150,000 tensors."""
LARGEST_PICKLE = 2**26
"""Bytes of what a PyTorch file holds besides the numbers of its tensors."""
LARGEST_REPEATED = 2**30
"""Bytes of a tensor that repeats what is stored once, as ``expand`` makes it."""


def check_safetensors(file: IO[bytes]) -> None:
    """Raises ValueError if the header of a safetensors file is absurdly long; the library checks the rest."""
    length = int.from_bytes(file.read(8), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header claims {length:,} bytes")


def check_archive(file: IO[bytes]) -> None:
    """Raises ValueError or BadZipFile if a zip archive expands or claims more than it has; those of ``torch.save`` never do."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    expanding = next((member for member in members if member.compress_type != zipfile.ZIP_STORED), None)
    if expanding is not None:
        raise ValueError(f"{expanding.filename[:100]!r} in it is compressed, and expands to {expanding.file_size:,} bytes")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its parts claim more bytes than it has")
    pickled = max((member.file_size for member in members if member.filename.endswith(".pkl")), default=0)
    if pickled > LARGEST_PICKLE:
        raise ValueError(f"it holds {pickled:,} bytes besides tensors")


def check_tensors_stored(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if a tensor is not stored number by number, and is larger than it may be."""
    import torch

    for name, tensor in tensors.items():
        if tensor.layout != torch.strided:
            raise ValueError(f"tensor {name[:100]!r} is not stored as an array")
        size = tensor.numel() * tensor.element_size()
        if size > max(LARGEST_REPEATED, tensor.untyped_storage().nbytes()):
            raise ValueError(f"tensor {name[:100]!r} claims {size:,} bytes and has {tensor.untyped_storage().nbytes():,}")
