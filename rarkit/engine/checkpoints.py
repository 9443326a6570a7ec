"""Checkpoints of a training in its unfinished output, by ``torch.distributed.checkpoint``: each rank writes what it holds.

A checkpoint is one safetensors file a rank, ``checkpoint-<step>-rank-<rank>.safetensors``, and ``checkpoint-<step>.json``, which
the first rank writes when all have finished. It seals the files with their sizes and digests: half of a checkpoint counts as none.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import wait as ended
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, final

from pydantic import JsonValue

from rarkit.cache.output import StageOutput
from rarkit.engine.checkpoint_seal import FORMAT, PREFIX, Seal, Shard, seal_name, sealed, shard_name, told
from rarkit.errors import IncompleteError, StoreError
from rarkit.runtime.ranks import LONGEST_PAUSE, Ranks

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup
    from torch.distributed.checkpoint.staging import DefaultStager

PATIENCE = timedelta(hours=2)
"""How long a rank waits for the slowest to write its file. One that is gone is noticed at once."""
_UNFINISHED = ".rarkit-"
"""How the names of files begin that a killed process has left half-written."""


@final
class Checkpoints:
    """The checkpoints of one output, which this process, or the first rank of its run, has locked. A context manager.

    All methods but ``wait`` and ``check`` are called by all ranks in the same order. Where there are several, torch.distributed has
    been initialised before the first ``save`` or ``load``, which make a group of their own with gloo.
    """

    def __init__(
        self,
        output: StageOutput,
        ranks: Ranks,
        *,
        keep_last: int = 1,
        keep_every: int | None = None,
        asynchronous: bool | None = None,
    ) -> None:
        """Writes nothing yet.

        Args:
            output: where they lie.
            ranks: the processes that save and load together.
            keep_last: how many are kept, 1 or more. Older ones are removed once a newer one is sealed.
            keep_every: checkpoints of multiples of so many steps are kept too; None: of none.
            asynchronous: whether ``save`` returns once the tensors are copied to the host; None: if one of them is on CUDA.
        """
        assert min(keep_last, keep_every or 1) >= 1, (keep_last, keep_every)
        self._output, self._ranks = output, ranks
        self._keep_last, self._keep_every = keep_last, keep_every
        self._asynchronous = asynchronous
        self._made_group: ProcessGroup | None = None
        self._stager: DefaultStager | None = None
        self._pending: Future[Any] | None = None
        self._step: int | None = None
        """The step of the checkpoint that was saved, or loaded, last."""
        self._whole: set[int] = set()
        """Steps whose files this run has written, or read and found to be what was written."""
        self._damaged: set[int] = set()
        """Steps whose files it has read and found to be something else."""
        self._is_tidy = False
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits for what is being saved. Nothing is written after that, also by a save that cannot end any more."""
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            error.add_note(f"The last checkpoint was not saved: {failure}")
        finally:
            self._over.set()
            if self._stager is not None:
                self._stager.close()

    # Saving

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, JsonValue]) -> None:
        """Saves a checkpoint, seals it, and removes those that are not kept. Does nothing if that step was saved or loaded last.

        On the CPU it has been saved on return, tensor by tensor, without a copy of those that are contiguous. On CUDA the tensors
        have been copied to the host on return, which keeps that copy for the next time; they are written meanwhile, and ``wait``
        or the next ``save`` raise what goes wrong.

        Args:
            step: steps taken, 0 or more.
            tensors: by name, of any shape, in the types that safetensors has; the same names and shapes on all ranks. Tensors
                that are no DTensor have equal values on all, and each is written by one of them.
            facts: plain JSON data, of less than a megabyte; those of the first rank count.

        Raises:
            StoreError: the store cannot be written, or the ranks have other tensors than each other.
            LockLostError: this run may not write the output any more.
            ValueError: names with brackets or control characters, more than eight axes, facts that are no JSON.
        """
        import torch
        from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
        from torch.distributed.checkpoint.state_dict_saver import AsyncSaveResponse, async_save, save

        from rarkit.engine.checkpoint_ranks import agree, failing_together, share, without_warning
        from rarkit.engine.checkpoint_storage import ShardWriter

        self.wait()
        if step == self._step:
            return
        self._damaged.discard(step)
        group, rank = self._group(), self._ranks.rank
        plain: dict[str, Tensor] = {name: tensor.detach() for name, tensor in tensors.items()}
        agree(plain, step, group)
        seal = Seal(format=FORMAT, output=self._output.fingerprint, step=step, facts=copy.deepcopy(dict(facts)), files={})
        seal.as_bytes()
        self._tidy()
        own = share(plain, rank, self._ranks.size)
        writer = ShardWriter(
            self._output, shard_name(step, rank), partial(self._unseal, step), partial(self._seal, seal), self._over.is_set
        )
        options: dict[str, Any] = {
            "storage_writer": writer,
            "planner": DefaultSavePlanner(flatten_state_dict=False, flatten_sharded_tensors=False),
            "process_group": group,
            "no_dist": group is None,
        }
        on_cuda = any(tensor.is_cuda for tensor in own.values())
        if self._asynchronous if self._asynchronous is not None else on_cuda:
            with without_warning(for_good=group is None):
                begun = async_save(own, async_stager=self._staging(torch.cuda.is_available()), **options)
            self._pending = begun.upload_completion if isinstance(begun, AsyncSaveResponse) else begun
        else:
            with failing_together(self._ranks), without_warning():
                save(own, **options)
        self._step = step
        self._whole.add(step)

    def wait(self) -> None:
        """Returns when nothing is being saved any more.

        Raises:
            StoreError, LockLostError: it could not be saved.
            RankError: another rank has failed meanwhile.
        """
        from rarkit.engine.checkpoint_ranks import failing_together

        pending = self._pending
        if pending is None:
            return
        while not ended([pending], timeout=LONGEST_PAUSE).done:
            self._ranks.check()
        self._pending = None
        if pending.exception() is not None:
            self._whole, self._step = self._whole - {self._step}, None
        with failing_together(self._ranks):
            pending.result()

    @property
    def failed(self) -> bool:
        """Whether this rank's part of what is being saved has gone wrong, which ``wait`` and the next ``save`` raise."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def _group(self) -> ProcessGroup | None:
        """Of all ranks: what is saved in a thread must not get between the collectives of the training."""
        if self._ranks.size > 1 and self._made_group is None:
            from torch.distributed import new_group

            self._made_group = new_group(backend="gloo", timeout=PATIENCE)
        return self._made_group

    def _staging(self, has_cuda: bool) -> DefaultStager:
        import torch
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        # Pinned memory takes 25 GB/s. It is kept, because pinning takes longer than copying; but a stager of PyTorch 2.11 fails
        # when it is used again (2.12 was not tried).
        if self._stager is None or tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13):
            self._stager = DefaultStager(StagingOptions(has_cuda, False, False, has_cuda))
        return self._stager

    def _tidy(self) -> None:
        """Removes what killed processes left half-written."""
        if self._ranks.first and not self._is_tidy:
            self._output.relist()
            for name in self._output.file_names():
                if name.startswith(_UNFINISHED):
                    self._output.remove_file(name)
        self._is_tidy = True

    def _unseal(self, step: int) -> None:
        """Before files of a damaged checkpoint are written over."""
        self._output.relist()
        if seal_name(step) in self._output.file_names():
            self._output.remove_file(seal_name(step))

    def _seal(self, seal: Seal, files: dict[str, Shard]) -> None:
        if self._over.is_set():
            raise StoreError("the training has ended before its last checkpoint was sealed. The one before is kept.")
        self._output.write_file(seal_name(seal.step), seal.model_copy(update={"files": files}).as_bytes())
        self._output.relist()
        # Later ones were not whole, or the training would have gone on from there.
        whole = [older for older in sealed(self._output) if older.step <= seal.step and older.step not in self._damaged]
        if not whole or whole[0].step != seal.step:
            raise StoreError(
                f"the first rank does not see what others wrote to {self._output.path}. All ranks need the same store."
            )
        every = self._keep_every
        kept = [*whole[: self._keep_last], *(older for older in whole if every is not None and older.step % every == 0)]
        files_kept = {name for other in kept for name in (seal_name(other.step), *other.files)}
        removed = [name for name in self._output.file_names() if name.startswith(PREFIX) and name not in files_kept]
        for name in sorted(removed, key=lambda name: not name.endswith(".json")):
            self._output.remove_file(name)

    # Loading

    def latest(self) -> int | None:
        """The step of the latest checkpoint that is whole: every byte of it has been read. None if there is none.

        Raises:
            StoreError: the store cannot be reached, or a newer rarkit wrote the checkpoint.
        """
        return next((seal.step for seal in self._seals() if self._is_whole(seal)), None)

    def steps(self) -> list[int]:
        """The steps of all checkpoints that are whole, ascending. Reads all of them. Raises StoreError as ``latest``."""
        return sorted(seal.step for seal in self._seals() if self._is_whole(seal))

    def facts(self, step: int) -> dict[str, JsonValue]:
        """What was given to ``save``; who reads it checks that it is what it should be. Raises IncompleteError as ``load``."""
        return self._found(step).facts

    def load(self, step: int, into: dict[str, Tensor]) -> None:
        """Copies a checkpoint into tensors, whatever ranks and shards it was saved from.

        Args:
            step: one of ``steps``.
            into: all that was saved, under its name; in the shape and type that it had, on any device, as Tensor or DTensor.

        Raises:
            IncompleteError: there is no such checkpoint, or it is damaged, or has other tensors. Nothing has been copied.
        """
        from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
        from torch.distributed.checkpoint.state_dict_loader import load

        from rarkit.engine.checkpoint_ranks import failing_together, without_warning
        from rarkit.engine.checkpoint_storage import opened

        seal = self._found(step)
        if not self._is_whole(seal):
            raise self._lacking(step)
        reader = opened(self._output, {name: shard.bytes for name, shard in seal.files.items()})
        reader.check_fits(into)
        group = self._group()
        planner = DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        with failing_together(self._ranks), without_warning():
            load(into, storage_reader=reader, planner=planner, process_group=group, no_dist=group is None)
        self._step = step

    def _seals(self) -> list[Seal]:
        """The latest first, as the first rank sees them."""
        self.wait()
        if self._ranks.first:
            self._output.relist()
        return [told(seal) for seal in self._ranks.told(lambda: [seal.model_dump(mode="json") for seal in sealed(self._output)])]

    def _found(self, step: int) -> Seal:
        found = next((seal for seal in self._seals() if seal.step == step), None)
        if found is None:
            raise self._lacking(step)
        return found

    def _lacking(self, step: int) -> IncompleteError:
        return IncompleteError(f"there is no whole checkpoint of step {step:,} in {self._output}. {self._output.cure}")

    def _is_whole(self, seal: Seal) -> bool:
        """Compares the digests of all files; each rank reads some."""
        if seal.step not in self._whole:
            files = sorted(seal.files)[self._ranks.rank :: self._ranks.size]
            damaged = [name for name in files if self._output.file_sha256(name) != seal.files[name].sha256]
            of_all = self._ranks.gathered(damaged)
            if self._ranks.told(lambda: any(of_all)):
                self._damaged.add(seal.step)
                return False
            self._whole.add(seal.step)
        return True
