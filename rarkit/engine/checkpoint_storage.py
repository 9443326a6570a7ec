"""Where ``torch.distributed.checkpoint`` writes and reads: safetensors files in a stage output, one a rank.

PyTorch's own writers keep their table of contents as a pickle, and its writer of safetensors holds all of a file in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from rarkit.cache.output import StageOutput
from rarkit.engine.checkpoint_seal import Shard
from rarkit.engine.tensor_files import Piece, header, ordered, read_header, tensors_of, whole_shape
from rarkit.errors import IncompleteError, StoreError
from rarkit.files.tensor_content import content

PORTION_BYTES = 2**24
"""What is read at once, unless one row of a tensor has more."""


@final
class ShardWriter(StorageWriter):
    """Writes what the plan gives this rank to one file, tensor by tensor."""

    def __init__(
        self,
        output: StageOutput,
        name: str,
        begin: Callable[[], None],
        seal: Callable[[dict[str, Shard]], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Writes nothing yet.

        Args:
            output, name: this rank's file.
            begin: called on the first rank before any rank writes.
            seal: called there with the files of all ranks once they are written.
            is_over: whether nothing may be written any more.
        """
        self._output, self._name = output, name
        self._begin, self._seal, self._is_over = begin, seal, is_over

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing to do: a writer is used once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """The plans as they are. No rank writes before this has returned."""
        self._begin()
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's file; none if the plan gives it nothing."""
        items = {piece: item for item in plan.items if (piece := _piece_of(item)) is not None}
        done: Future[list[WriteResult]] = Future()
        if not items:
            done.set_result([])
            return done
        pieces = ordered(items)
        with self._output.writing_file(self._name) as stream:
            stream.write(header(pieces))
            for piece in pieces:
                if self._is_over():
                    raise StoreError("the training has ended before its last checkpoint was written. The one before is kept.")
                tensor = planner.resolve_data(items[piece])
                assert isinstance(tensor, Tensor), piece
                assert tuple(tensor.shape) == piece.shape, piece
                stream.write(content(tensor))
        shard = Shard(bytes=stream.size, sha256=stream.sha256)
        done.set_result([WriteResult(MetadataIndex(self._name), stream.size, shard.model_dump())])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Seals what all ranks have written."""
        written = [result for of_rank in results for result in of_rank]
        self._seal({result.index.fqn: Shard.model_validate(result.storage_data) for result in written})

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Never: the place is that of the output."""
        return False


def _piece_of(item: WriteItem) -> Piece | None:
    """What of a tensor an item writes; None for the shard of a rank that holds nothing of it."""
    data = item.tensor_data
    assert data is not None, item
    shape, offsets = tuple(data.chunk.sizes), tuple(data.chunk.offsets)
    is_whole = shape == tuple(data.size)
    if 0 in shape and not is_whole:
        return None
    return Piece(item.index.fqn, data.properties.dtype, offsets, shape, is_whole)


@final
class ShardReader(StorageReader):
    """Reads what the plan asks for, in portions, into tensors that are there."""

    def __init__(self, output: StageOutput, tensors: Mapping[str, Sequence[tuple[str, Piece]]]) -> None:
        """``tensors``: the pieces of each tensor, with the file that each is in. Raises ValueError as ``whole_shape``."""
        self._output, self._tensors = output, tensors
        self.shapes = {name: whole_shape([piece for _, piece in found]) for name, found in tensors.items()}

    def check_fits(self, into: Mapping[str, Tensor]) -> None:
        """Raises IncompleteError unless these are the tensors that are stored, by name, type and shape."""
        stored = {name: _described(found[0][1].dtype, self.shapes[name]) for name, found in self._tensors.items()}
        wanted = {name: _described(tensor.dtype, tensor.shape) for name, tensor in into.items()}
        other = [name for name in sorted(stored.keys() | wanted.keys()) if stored.get(name) != wanted.get(name)]
        if other:
            name, beside = other[0], f" ({len(other) - 1:,} others differ too)" if other[1:] else ""
            raise IncompleteError(
                f"the checkpoint of {self._output} is of another training: {name!r} is {stored.get(name, 'missing')} in it and "
                f"{wanted.get(name, 'missing')} in this one{beside}. {self._output.cure}"
            )

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing to do: a reader is used once."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The tensors, and the boxes in which they are stored."""
        return Metadata(
            {
                name: TensorStorageMetadata(
                    properties=TensorProperties(dtype=found[0][1].dtype),
                    size=torch.Size(self.shapes[name]),
                    chunks=[ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.shape)) for _, piece in found],
                )
                for name, found in self._tensors.items()
            }
        )

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """The plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads all items."""
        for item in plan.items:
            with torch.no_grad():
                target = planner.resolve_tensor(item).detach()
                self._read(item, target)
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read(self, item: ReadItem, target: Tensor) -> None:
        index = item.storage_index
        offsets = tuple(index.offset or ())
        file, piece = next(found for found in self._tensors[index.fqn] if found[1].offsets == offsets)
        if 0 in target.shape:
            return
        # A number without axes is a row of one.
        shape, starts, lengths = piece.shape or (1,), tuple(item.storage_offsets) or (0,), tuple(item.lengths) or (1,)
        target = target.reshape(()).view(1) if target.ndim == 0 else target
        row_bytes = piece.nbytes // shape[0]
        rows = max(1, PORTION_BYTES // row_bytes)
        for row in range(0, lengths[0], rows):
            count = min(rows, lengths[0] - row)
            begin = piece.start + (starts[0] + row) * row_bytes
            data = bytearray(self._output.read_part(file, begin, begin + count * row_bytes))
            numbers = torch.frombuffer(data, dtype=torch.uint8).view(piece.dtype).view(count, *shape[1:])
            box = tuple(slice(start, start + length) for start, length in zip(starts[1:], lengths[1:], strict=True))
            target[row : row + count].copy_(numbers[(slice(None), *box)])

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Never: the place is that of the output."""
        return False


def _described(dtype: torch.dtype, shape: Sequence[int]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"


def opened(output: StageOutput, sizes: Mapping[str, int]) -> ShardReader:
    """The files of a checkpoint, of which the headers have been read and compared with each other.

    Args:
        output: where they are.
        sizes: bytes of each, by name.

    Raises:
        IncompleteError: what they claim cannot be: they hold not what their sizes, or the other files, allow.
    """
    files = {}
    for file, size in sizes.items():
        try:
            files[file] = read_header(partial(output.read_part, file), size)
        except ValueError as error:
            raise IncompleteError(f"{file} of {output} is damaged ({error}). {output.cure}") from error
    try:
        return ShardReader(output, tensors_of(files))
    except ValueError as error:
        raise IncompleteError(f"the checkpoint of {output} is damaged ({error}). {output.cure}") from error
