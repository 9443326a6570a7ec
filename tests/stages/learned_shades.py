"""A tokenizer that learns with the engine, and runs of the stage ``fit`` with it, for ``tests.processes``."""

from __future__ import annotations

import os
import signal
from typing import Any, Literal, final

import numpy as np
import torch
from torch import nn

import rarkit
from rarkit.cache.output import StageOutput
from rarkit.engine.trainer import Trainer
from rarkit.training import Losses, Task, TrainSettings

SHADES = 5
STEPS = 40


@final
class LearnedShades(rarkit.Tokenizer):
    """One token per pixel: the nearest of some shades, which are learned."""

    name: Literal["learned_shades"] = "learned_shades"
    learns = True

    def codebook_size(self) -> int:
        return SHADES

    def grid(self, info: rarkit.ImageInfo) -> tuple[int, int]:
        return info.height, info.width

    def learn(self, reader: Any, seed: int, learning: Any) -> dict[str, Any]:
        settings = TrainSettings(
            steps=STEPS, batch_size=8, learning_rate=0.05, weight_decay=0, precision="float32", checkpoint_every=10
        )
        learning.note("grey", 0.5, "A single grey has an error of {value}.", beside="held_out_error")
        task = ShadesTask(reader.read().images_NHWC, seed)
        trained = learning.train(task, settings, seed=seed, title="shades", best_every=15, preview_every=25)
        return {"shades": trained.weights["shades"]["levels"].numpy()}

    def build(self, state: Any, device: str) -> Model:
        return Model(torch.from_numpy(np.asarray(state["shades"])), device)


@final
class Levels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.Parameter(torch.linspace(0.2, 0.8, SHADES))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return (pixels[..., None] - self.levels).square().min(-1).values


@final
class ShadesTask(Task):
    def __init__(self, images_NHWC: Any, seed: int) -> None:
        self.pixels, self.seed = torch.from_numpy(images_NHWC).flatten(1).float() / 255, seed
        self.networks = {"shades": Levels()}
        self.held_out_samples = len(self.pixels)

    def batch(self, step: int, indices_B: Any) -> dict[str, torch.Tensor]:
        draws = (np.random.default_rng((self.seed % 2**32, step, index)) for index in indices_B)
        return {"pixels": self.pixels[[int(draw.integers(len(self.pixels))) for draw in draws]]}

    def loss(self, name: str, network: nn.Module, batch: Any) -> Losses:
        return Losses(network(batch["pixels"]).mean())

    def held_out_batch(self, indices_B: Any) -> dict[str, torch.Tensor]:
        return {"pixels": self.pixels[indices_B]}

    def errors(self, networks: Any, batch: Any) -> dict[str, torch.Tensor]:
        return {"error": networks["shades"](batch["pixels"]).mean(1)}

    def previews(self, networks: Any) -> dict[str, Any]:
        images_MHWC = (self.pixels[:3].reshape(3, 4, 4, 1) * 255).byte().numpy()
        return {"original": images_MHWC, "inverted": 255 - images_MHWC}


@final
class Model(rarkit.TokenizerModel):
    def __init__(self, shades: torch.Tensor, device: str) -> None:
        self.shades = shades.to(device)

    def encode(self, images_BHWC: torch.Tensor) -> torch.Tensor:
        pixels = images_BHWC[..., 0].float() / 255
        return (pixels[..., None] - self.shades).abs().argmin(-1)

    def decode(self, codes_BHW: torch.Tensor) -> torch.Tensor:
        return (self.shades[codes_BHW].clamp(0, 1) * 255).round().byte()[..., None]


def fitted(store: str, runs: str, kill_after: int | None = None) -> None:
    """Runs ``fit``; kills itself after a checkpoint of this step is sealed, or after 0 steps."""
    if kill_after is not None:
        plain = StageOutput.write_file

        def writing(self: StageOutput, name: str, data: bytes) -> None:
            plain(self, name, data)
            if name == f"checkpoint-{kill_after}.json":
                os.kill(os.getpid(), signal.SIGKILL)

        StageOutput.write_file = writing  # type: ignore[method-assign]
    if kill_after == 0:
        Trainer.advance = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    rarkit.register(LearnedShades, replace=True)
    recipe = rarkit.make_recipe(
        dataset={"name": "generated", "height": 4, "width": 4, "channels": 1},
        tokenizer="learned_shades",
        model={"hidden_size": 8, "depth": 1, "num_heads": 2},
        train={"steps": 1, "batch_size": 2},
    )
    rarkit.run(recipe, name="shades", store=store, until="fit", device="cpu", runs=runs)
