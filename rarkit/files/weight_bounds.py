"""What a file of weights claims, checked before it is believed: headers, compressed parts, tensors that repeat what is stored."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, NoReturn, final

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_HEADER = 2**24
"""Bytes of the header of a safetensors file: some 150,000 tensors."""
LARGEST_PICKLE = 2**21
"""Bytes of what a PyTorch file holds besides the numbers of its tensors: some 10,000 tensors. Each byte may be an instruction that
makes an object."""
MOST_INSTRUCTIONS = 2**20
"""Reads of that in a file of an older PyTorch, one or two for each instruction."""
_OF_ANY_SIZE = b"bytearray"
"""What a few bytes can make a gigabyte of, and PyTorch allows."""
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
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > LARGEST_PICKLE:
                    raise ValueError(f"it holds {member.file_size:,} bytes besides tensors")
                if _OF_ANY_SIZE in archive.read(member):
                    raise ValueError("it makes arrays of bytes")


@final
class FewInstructions(io.BufferedReader):
    """A file of ``torch.save`` before PyTorch 1.6, whose pickled part is read instruction by instruction."""

    _left = MOST_INSTRUCTIONS

    def fileno(self) -> NoReturn:
        """So that torch reads here and not from the descriptor."""
        raise io.UnsupportedOperation("fileno")

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises ValueError if it was read too often."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it holds more than {MOST_INSTRUCTIONS:,} instructions besides tensors")
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Raises ValueError if it names what may be of any size."""
        line = super().readline(LARGEST_PICKLE if size is None or size < 0 else size)
        if _OF_ANY_SIZE in line:
            raise ValueError("it makes arrays of bytes")
        return line


def check_tensors_stored(tensors: Mapping[str, Tensor]) -> None:
    """Raises ValueError if a tensor is not stored number by number, and is larger than it may be."""
    import torch

    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or tensor.device.type != "cpu":
            raise ValueError(f"tensor {name[:100]!r} is not stored as an array")
        size = tensor.numel() * tensor.element_size()
        if size > max(LARGEST_REPEATED, tensor.untyped_storage().nbytes()):
            raise ValueError(f"tensor {name[:100]!r} claims {size:,} bytes and has {tensor.untyped_storage().nbytes():,}")
