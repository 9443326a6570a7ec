"""What torch keeps and allocates, for costs to be held to."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from rarkit.models import ImageModel, ModelConfig


def training_batch(config: ModelConfig, images: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens_BL = torch.randint(config.codebook_size, (images, config.seq_len), generator=torch.Generator().manual_seed(0))
    return tokens_BL, torch.arange(images), torch.arange(config.seq_len).expand(images, -1)


def loss_of(logits_BLV: Tensor, tokens_BL: Tensor) -> Tensor:
    return functional.cross_entropy(logits_BLV.flatten(0, 1).float(), tokens_BL.flatten())


def kept(model: ImageModel, images: int, *, low: bool = False, checkpointing: bool = False) -> int:
    """Bytes of all that autograd keeps from the forward pass and the loss, weights left out, and autocast's copies of them."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    shapes = {weight.shape for weight in model.parameters()} | {weight.shape[::-1] for weight in model.parameters()}
    sizes, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)
        if storage.data_ptr() not in weights and not (low and tensor.shape in shapes):
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens_BL, labels_B, orders_BL = training_batch(model.config, images)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits_BLV = model(tokens_BL, labels_B, orders_BL, mask_seeds_B=labels_B, checkpointing=checkpointing)
        loss_of(logits_BLV, tokens_BL)
    return sum(sizes.values())


def peak(call: Callable[[], object]) -> int:
    """The most that the call has allocated at a time, by the CPU allocator's own account."""
    # Garbage from before must not be freed meanwhile.
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            call()
    finally:
        gc.enable()
    changes = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())))
