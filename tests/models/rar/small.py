"""The small model of the parity data, and one of our own."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from rarkit.models import RAR, RARConfig

PARITY = Path(__file__).parents[2] / "data" / "parity"
TINY = RARConfig(hidden_size=32, depth=2, num_heads=2, mlp_hidden_size=48, seq_len=12, codebook_size=20, num_classes=5)


@dataclass
class Parity:
    """``rar_small.safetensors``, taken apart."""

    model: RAR
    guidance: list[dict[str, float]]
    tensors: dict[str, Tensor]


def parity() -> Parity:
    with safe_open(PARITY / "rar_small.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no mapping)
        settings = json.loads(file.metadata()["config"])
    guidance = settings.pop("guidance")
    model = RAR(RARConfig(**settings), seed=None)
    weights = {name.removeprefix("weights/"): tensor for name, tensor in tensors.items() if name.startswith("weights/")}
    model.load_state_dict(weights)
    return Parity(model.eval(), guidance, tensors)


def lively(config: RARConfig = TINY, seed: int = 0, *, scale: float = 0.2) -> RAR:
    """A model in which nothing is degenerate: a fresh one has AdaLN gates of zero, so its blocks do nothing."""
    return copy.deepcopy(_lively(config, seed, scale))


@cache
def _lively(config: RARConfig, seed: int, scale: float) -> RAR:
    model = RAR(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * scale)
    return model.eval()
