"""What a task takes to train, found without training it: its passes are run on tensors that have shapes and no values.

PyTorch's fake tensors stand for real ones. Each operation of the forward and the backward pass makes and frees them as it would
those, so that memory is counted as it is held; FLOPs are counted by PyTorch's own formulas.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from rarkit.engine.degrees import Degrees
from rarkit.engine.optimizer_state import begin_state, optimizer_tensors
from rarkit.engine.planned import Planned
from rarkit.engine.trainer import Trainer
from rarkit.errors import CapabilityError


@final
@dataclass(frozen=True)
class Held:
    """What a network holds throughout, in a process that shares nothing."""

    parameters: int
    """Their number."""
    weights: int
    """Bytes of parameters and buffers."""
    trained: int
    """Bytes of the parameters that are trained: gradients take as many, and so does an average."""
    kept: int
    """Bytes of its state dict, which the best weights take once more."""
    optimizer: int
    """Bytes of its optimizers' state."""
    blocks: tuple[int, int]
    """The number of its blocks, which FSDP gathers one by one, and the parameters of the largest; (0, 0) if there is none."""


@final
@dataclass(frozen=True)
class Passed:
    """What a pass of a network takes."""

    peak: int
    """Bytes at most, forwards or backwards, beyond what is held throughout and gradients."""
    flops: int
    """Forwards and backwards, with recomputation."""


@final
class Footprint:
    """Of a training that is planned. Its task is used up: the networks have no values afterwards."""

    def __init__(self, planned: Planned, precision: str) -> None:
        """``precision``: autocast's dtype, or ``"float32"``."""
        alone = {"data_parallel": "ddp", "shard": None, "replicate": None, "compile": False, "ema_decay": None}
        settings = planned.settings.model_copy(update=alone)
        low: Any = precision
        self._trainer = Trainer(planned.task, settings, seed=0, device="cpu", degrees=Degrees(1, 1, 1, 1), precision=low)
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            self._networks = self._trainer.networks
            for network in self._networks.values():
                _take_values(network, self._mode)
            self.held = {name: self._held(planned, name, network) for name, network in self._networks.items()}

    def _held(self, planned: Planned, name: str, network: nn.Module) -> Held:
        optimizers = planned.task.optimizers(name, planned.settings)
        for optimizer in optimizers:
            begin_state(optimizer)
        weights = list(network.parameters())
        blocks = [sum(weight.numel() for weight in block.parameters()) for block in planned.task.blocks(name)]
        return Held(
            parameters=sum(weight.numel() for weight in weights),
            weights=_bytes([*weights, *network.buffers()]),
            trained=_bytes(weight for weight in weights if weight.requires_grad),
            kept=_bytes(network.state_dict().values()),
            optimizer=_bytes(optimizer_tensors(name, network, optimizers).values()),
            blocks=(len(blocks), max(blocks, default=0)),
        )

    def passes(self, samples: int) -> Mapping[str, Passed]:
        """What a pass of so many samples takes in the last step, in which nothing is left out because it begins late, by network.

        Raises:
            CapabilityError: a loss reads values of its tensors, which there are none of.
        """
        self._trainer.degrees = Degrees(1, 1, samples, samples)
        found, counted = {}, _Counted()
        with self._mode:
            for name, network in self._networks.items():
                weights = [weight for weight in network.parameters() if weight.requires_grad]
                for weight in weights:
                    # As when passes are added up: there is room for them before the first ends.
                    weight.grad = torch.zeros_like(weight)
                held = [*network.buffers(), *(weight for other in self._networks.values() for weight in other.parameters())]
                with counted.beyond([*held, *(weight.grad for weight in weights)]):
                    self._pass(name)
                found[name] = Passed(counted.peak, counted.flops)
                for weight in weights:
                    weight.grad = None
        return found

    def _pass(self, name: str) -> None:
        try:
            self._trainer.gradients(name, self._trainer.settings.steps - 1)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            what = f"the loss of network {name!r} of {type(self._trainer.task).__name__} reads values ({error.func})"
            raise CapabilityError(f"{what}, which only a training has") from error


@final
class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that operations make or are given, until they are freed; and FLOPs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.flops = 0
        self._known: set[int] = set()

    @contextmanager
    def beyond(self, tensors: Iterable[Tensor | None]) -> Iterator[None]:
        """Counts within it, from what is left of before; these are not counted."""
        mine = {tensor.untyped_storage()._cdata for tensor in tensors if tensor is not None} - self._known
        self._known |= mine
        self.peak, self.flops = self.now, 0
        try:
            with self:
                yield
        finally:
            self._known -= mine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        # Not by FlopCounterMode, whose hooks on modules do not stand torch.autograd.grad inside a loss.
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **kwargs, out_val=made)
        for tensor in tree_iter((args, kwargs, made)):
            if isinstance(tensor, Tensor):
                self._see(tensor)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _take_values(network: nn.Module, mode: FakeTensorMode) -> None:
    """Puts fakes in the place of all parameters and buffers. Single numbers keep their value: whether something has begun, say."""
    fakes: dict[Tensor, Tensor] = {}
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                if tensor not in fakes:
                    fakes[tensor] = _fake(tensor, mode)
                tensors[name] = fakes[tensor]  # type: ignore[assignment]


def _fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(mode.from_tensor(tensor.detach()), tensor.requires_grad)
    return torch.tensor(tensor.tolist(), dtype=tensor.dtype) if tensor.numel() == 1 else mode.from_tensor(tensor)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
