"""The weights of a tokenizer's network: those of a released file, of a bundle, or random ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TypeVar

from rarkit.files.tensor_mismatches import Sizes, check_tensors, no_sizes
from rarkit.files.weight_files import local_copy
from rarkit.files.weights import read_tensors
from rarkit.tokenizers.base import LearnedState

if TYPE_CHECKING:
    from torch import nn

Network = TypeVar("Network", bound="nn.Module")


def load_network(
    network: Network,
    weights: str | None,
    state: LearnedState | None = None,
    *,
    cure: str = "",
    sizes: Sizes = no_sizes,
    unused: Collection[str] = (),
    renamed: Callable[[str], str] = str,
) -> Network:
    """Gives a network its weights, in float32 on the CPU, and puts it into evaluation mode, without gradients.

    A file may be as its authors published it: safetensors, or a state dict of ``torch.save`` (read without running code), by
    itself or in an entry ``ema``, ``model`` or ``state_dict`` of a training checkpoint.

    Args:
        network: on the meta device.
        weights: a path or URL; None for random weights (``random_weights`` of seed 0).
        state: the weights by name, which are taken instead if there are any: those of a bundle.
        cure: the last sentence of the message about weights that do not fit.
        sizes: reads sizes off the tensors, each under the words that follow the number in that message: ``{"codes": 1024}``.
        unused: names of tensors that files have and the network does not need.
        renamed: from the name of a tensor in the file to that in the network.

    Returns:
        The same network.

    Raises:
        WeightsError: the file is missing, damaged, or does not fit the network; the message names sizes that differ, or tensors.
        NotFetchedError: it is remote, and nothing large may be fetched now.
    """
    import torch

    if state:
        place, tensors = "the bundle", {name: torch.from_numpy(array) for name, array in state.items()}
    elif weights is None:
        return random_weights(network.to_empty(device="cpu"), 0).eval().requires_grad_(False)
    else:
        place, (tensors, _) = weights, read_tensors(local_copy(weights))
        tensors = {renamed(name): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor.float() for name, tensor in tensors.items() if name not in unused}
    check_tensors(place, "tokenizer", network.state_dict(), tensors, lambda _: cure, sizes)
    network.load_state_dict(tensors, assign=True)
    return network.eval().requires_grad_(False)


def network_state(network: nn.Module) -> LearnedState:
    """The weights of a network by name, for a bundle: what ``load_network`` takes as ``state``."""
    return {name: tensor.numpy() for name, tensor in network.state_dict().items()}


def random_weights(network: Network, seed: int) -> Network:
    """Sets random weights that keep activations in a sensible range, for rehearsals and benchmarks.

    Norms (layers whose class has "Norm" in its name) scale by one and shift by nothing; all else is normal with a variance of one
    over the number of inputs.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            for name, weight in layer.named_parameters(recurse=False):
                if "Norm" in type(layer).__name__:
                    weight.fill_(1.0 if name == "weight" else 0.0)
                else:
                    fan = weight[0].numel() if weight.ndim > 1 else weight.numel()
                    weight.copy_(torch.randn(weight.shape, generator=generator, device="cpu") * fan**-0.5)
    return network
