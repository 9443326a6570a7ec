"""The processes of a training: gradients, weights and numbers that they share, by ``torch.distributed``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, final
from uuid import uuid4

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rarkit.engine.degrees import Degrees
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RankError
from rarkit.files.code_folders import keep_torch_private
from rarkit.runtime.ranks import Ranks

LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "connection refused", "socket")
"""Words in what torch says when another process of a collective is gone."""
KEPT = "The same command goes on from the last checkpoint."
_left: list[Any] = []
"""Process groups that were destroyed. Freeing gloo's joins its threads, and Python's lock is held meanwhile, for which such a
thread waits if it is just dropping the last tensor: a training of two processes hung at its end. By the end of the process they
rest."""
PATIENCE = timedelta(hours=1)
"""How long a collective waits for a process that is alive but busy: writing to a slow store, say."""


@final
class Mesh:
    """This process among those that train together."""

    def __init__(self, ranks: Ranks, degrees: Degrees, device: str) -> None:
        """``degrees`` divides the batch among ``ranks``; inside ``joined``, unless there is only one."""
        self.ranks, self.degrees, self.device = ranks, degrees, device
        self._devices: Any = None

    @property
    def alone(self) -> bool:
        """Whether there is only one process."""
        return self.ranks.size == 1

    def wrap(self, network: nn.Module, blocks: Sequence[nn.Module], settings: TrainSettings, precision: str) -> nn.Module:
        """What to call instead of the network, so that the processes share its gradients. Compiles and shards it in place.

        Args:
            network: on the device, with the same weights on each process.
            blocks: its parts that are compiled and sharded one by one.
            settings: the recipe's ``[train]``.
            precision: ``"float32"`` or ``"bfloat16"``.
        """
        if settings.compile:
            for module in blocks or [network]:
                compile_in_place(module)
        if self.alone:
            return network
        if settings.data_parallel == "ddp":
            # Buckets that are made anew after the first step would add gradients in another order after a resumption. DDP keeps
            # them where it looks for unused parameters.
            fixed = self.device == "cpu"
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
            return nn.parallel.DistributedDataParallel(
                _WithUnused(network) if fixed else network,
                device_ids=None if fixed else [torch.device(self.device)],
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=fixed,
            )
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        # Nothing is changed in place behind a network.
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(\w+\) returned a view tensor")
        low = precision != "float32"
        policy = MixedPrecisionPolicy(
            param_dtype=getattr(torch, precision) if low else None,
            reduce_dtype=torch.float32 if low else None,
            cast_forward_inputs=False,
        )
        options: dict[str, Any] = {"mesh": self._device_mesh(), "mp_policy": policy}
        for block in blocks:
            fully_shard(block, reshard_after_forward=settings.reshard_after_forward, **options)
        # The root's weights are needed again at once, at the start of the backward pass.
        fully_shard(network, reshard_after_forward=False, **options)
        return network

    def _device_mesh(self) -> Any:
        from torch.distributed.device_mesh import init_device_mesh

        if self._devices is None:
            kind, shard = torch.device(self.device).type, self.degrees.shard
            sizes, names = ((self.degrees.replicate, shard), ("replicate", "shard"))
            if self.degrees.replicate == 1:
                sizes, names = sizes[1:], names[1:]  # type: ignore[assignment]
            self._devices = init_device_mesh(kind, sizes, mesh_dim_names=names)
        return self._devices

    @contextmanager
    def passing(self, network: nn.Module, *, last: bool) -> Iterator[None]:
        """Around one of several passes whose gradients are added up: only the last is followed by an exchange of gradients."""
        from torch.distributed.fsdp import FSDPModule

        if isinstance(network, FSDPModule):
            network.set_requires_gradient_sync(last)
            network.set_is_last_backward(last)
        if isinstance(network, nn.parallel.DistributedDataParallel) and not last:
            with network.no_sync():
                yield
        else:
            yield

    def total(self, numbers_N: Tensor) -> Tensor:
        """The sum of each number, (N,), over all processes, in place."""
        if not self.alone:
            torch.distributed.all_reduce(numbers_N)
        return numbers_N

    def differing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """The names of tensors whose bytes are not the same on all processes, which must all call this; none of shared ones."""
        own = {name: tensor for name, tensor in tensors.items() if not isinstance(tensor, DTensor) and tensor.numel()}
        if self.alone or not own:
            return []
        # Sums of bytes, because those of numbers depend on the order.
        sums_N = torch.stack([tensor.contiguous().reshape(-1).view(torch.uint8).sum(dtype=torch.int64) for tensor in own.values()])
        both_2N = torch.stack([sums_N, -sums_N])
        torch.distributed.all_reduce(both_2N, op=torch.distributed.ReduceOp.MAX)
        return [name for name, differs in zip(own, (both_2N.sum(0) != 0).tolist(), strict=True) if differs]


@final
class _WithUnused(nn.Module):
    """A network beside a parameter that nothing uses. DDP that looks for unused ones and finds none warns, and not by Python."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.unused = nn.Parameter(torch.zeros(1, device="cpu"))

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.network(*arguments, **options)


def compile_in_place(module: nn.Module) -> None:
    """Has ``torch.compile`` make the module's ``forward`` when it is first called."""
    keep_torch_private()
    # Dropout masks are then those of PyTorch's own kernel, the same as without compilation. Generated kernels draw one by one,
    # which on a GPU takes longer than the rest of what they do.
    module.compile(options={"fallback_random": True})


def reshard(network: nn.Module) -> None:
    """Frees what a forward pass has gathered of a network's weights, if processes share them."""
    from torch.distributed.fsdp import FSDPModule

    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@contextmanager
def joined(ranks: Ranks, device: str) -> Iterator[None]:
    """Around a training of several ranks: they form a process group. What a rank raises because another has gone is a RankError.

    Raises:
        RankError: another rank has gone.
    """
    if ranks.size == 1:
        yield
        return
    distributed = torch.distributed
    begun = not distributed.is_initialized()
    try:
        if begun:
            # gloo beside nccl, for what is on the host: checkpoints that are written in the background.
            backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
            # Of its own: addresses that an earlier group of this run left would be taken for those of this one.
            store = ranks.store(f"process group {ranks.told(lambda: uuid4().hex)}")
            distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=PATIENCE)
        yield
    except RuntimeError as error:
        # NCCL's own buffers can run out of memory, too.
        if isinstance(error, torch.OutOfMemoryError) or not any(word in str(error).lower() for word in LOST):
            raise
        # gloo's begins with a line of its own source and ends with advice.
        what = re.sub(r"^\[\S+:\d+\] |\. This is typically caused .*", "", str(error).splitlines()[0])
        ended = f"another process of this run was killed, or cannot be reached ({what}). {KEPT}"
        raise RankError(ranks.reason() or ended, told=not ranks.first) from error
    finally:
        if begun and distributed.is_initialized():
            _left.append(distributed.group.WORLD)
            distributed.destroy_process_group()
