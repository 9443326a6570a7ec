"""A model family, one layer of attention, that breaks the promise which ``fault`` names."""

from __future__ import annotations

from typing import Literal, final

from rarkit.files.weight_files import local_copy
from rarkit.files.weights import read_tensors
from rarkit.models.base import ModelCosts, ModelFamily, SamplingBytes, TrainingBytes, refuse_permutations
from rarkit.models.config import ModelConfig

Fault = Literal[
    "none",
    "count",
    "seedless",
    "global",
    "shape",
    "peeking",
    "blind",
    "batch",
    "classless",
    "undropped",
    "detached",
    "always",
    "never",
    "unseeded",
    "stale",
    "unguided",
    "restored",
    "training",
    "lenient",
    "merged",
    "flat",
    "silent",
    "schedule",
    "rehearsed",
    "hashed",
    "writes",
    "views",
    "float32",
    "unused",
    "orderless",
    "first_order",
    "sees_256",
    "frozen",
    "one_size",
    "eval_draws",
]
WIDTH = 8


@final
class BentConfig(ModelConfig):
    """The sizes, and what is wrong."""

    fault: Fault

    def parameter_count(self):
        rows = self.codebook_size + self.num_classes + 1 + self.seq_len + (self.fault == "unused")
        return (rows + self.codebook_size + (self.fault == "shape")) * WIDTH + (self.fault == "count")


@final
class Bent(ModelFamily):
    """One layer of attention."""

    name: Literal["bent"] = "bent"
    fault: Fault = "none"
    """What is wrong."""
    attention_dropout: float = 0.0
    """Of attention weights."""

    def config(self, *, grid, codebook_size, num_classes):
        sizes = {"seq_len": grid[0] * grid[1], "codebook_size": codebook_size, "num_classes": num_classes}
        return BentConfig(hidden_size=WIDTH, class_dropout=self.class_dropout, fault=self.fault, **sizes)

    def costs(self, config):
        return BentCosts(config)

    def create(self, config, attention, seed):
        from tests.testing.wrong_image_model import BentModel

        return BentModel(config, attention, self.attention_dropout, seed)

    def restore(self, config, attention, tensors):
        model = self.create(config, attention, 0)
        if self.fault == "lenient":
            return model
        model.load_state_dict({name: 2 * tensor if self.fault == "restored" else tensor for name, tensor in tensors.items()})
        return model

    def load(self, path, config, attention, *, device, dtype):
        import torch

        from rarkit.models.checkpoints import check_fit, fill

        place = local_copy(path)
        tensors, _ = read_tensors(place)
        with torch.device("meta"):
            model = self.create(config, attention, 0)
        check_fit(path, model, tensors, lambda: "")
        fill(model, place, tensors, device=device, dtype=dtype)
        return model.train(self.fault == "training")

    @property
    def dropped(self):
        return {"attention_dropout": self.attention_dropout}

    def check_schedule(self, schedule):
        if self.fault == "schedule":
            refuse_permutations(self.name, schedule)

    def rehearsed(self):
        return self if self.fault == "rehearsed" else self.model_copy(update={"weights": None})


@final
class BentCosts(ModelCosts):
    """Numbers that grow, unless they are wrong."""

    def __init__(self, config):
        self.config = config

    def step_flops(self, batch_size, *, checkpointing):
        return 1 if self.config.fault == "flat" else batch_size * (3 + checkpointing)

    def training_bytes(self, *, micro_batch, precision, checkpointing, keeps_weights):
        count = self.config.parameter_count()
        return TrainingBytes(4 * count, 4 * count, 8 * count, 0, micro_batch)

    def sampling_flops(self, *, batch, classes, guided_steps):
        return batch * (self.config.seq_len + guided_steps)

    def sampling_traffic(self, *, batch, guided_steps, precision):
        return batch * (self.config.seq_len + guided_steps)

    def sampling_bytes(self, *, batch, guided, precision, kv_cache, on_cpu):
        return SamplingBytes(4 * self.config.parameter_count(), batch * (1 + guided), 0, 0, 0, 0)
