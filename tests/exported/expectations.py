"""Writes what rarkit computes with a model that was exported, for ``test_exports.py`` to compare where rarkit is not installed.

Shape letters: B batch, L codes of an image, V codebook size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from rarkit.inference.to_transformers.source import Exported
from rarkit.sampling import Constant, GuidanceSchedule, PowerCosine, generate
from rarkit.sampling.generation import decode
from rarkit.tokenizers.base import TokenizerModel

SCHEDULES: dict[str, GuidanceSchedule] = {
    "none": Constant(),
    "constant": Constant(scale=3.0),
    "power_cosine": PowerCosine(scale=4.0, power=1.5),
}
CHOICE = {"temperature": 0.8, "top_k": 7, "top_p": 0.9}


@torch.inference_mode()
def write_expectations(exported: Exported, tokenizer: TokenizerModel | None, path: Path, images: int = 3) -> None:
    """Logits and greedy tokens along the order, the distributions that tokens are drawn from, and decoded images."""
    experiment, model = exported.experiment, exported.model
    config, order_L = experiment.config, torch.from_numpy(experiment.order_L)
    labels_B = torch.arange(images) * 7 % config.num_classes
    tokens_BL = torch.from_numpy(np.random.default_rng(1).integers(0, config.codebook_size, (images, config.seq_len)))
    tensors = {"labels": labels_B, "tokens": tokens_BL, "order": order_L, "grid": torch.tensor(experiment.grid)}
    tensors["logits"] = model(tokens_BL, labels_B, order_L)
    tensors["unconditional"] = model(tokens_BL, labels_B, order_L, dropped_B=torch.ones(images, dtype=torch.bool))
    for name, guidance in SCHEDULES.items():
        tensors[f"greedy {name}"] = generate(model, labels_B, order=order_L, top_k=1, guidance=guidance)
        steps = decode(model, labels_B, order=order_L, guidance=guidance, forced_tokens=tokens_BL, **CHOICE)
        tensors[f"probabilities {name}"] = torch.stack([step.probabilities_BV for step in steps], dim=1)
    if tokenizer is not None:
        tensors["images"] = tokenizer.decode(tokens_BL.reshape(-1, *experiment.grid)).cpu()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
