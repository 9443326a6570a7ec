"""Images from a causal language model over codes: prompts of classes, classifier-free guidance, codes in the grid, pixels.

A sequence is a prompt and then the L codes of an image in visiting order. There is no end token: generation stops by length.

Shape letters: B batch, S ids of a sequence so far, L codes of an image, V codebook size.
"""

from __future__ import annotations

import math
import shutil
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import cached_file

CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
"""What this version of transformers calls the cache."""
MOST = 1e6
"""The largest scale and power of guidance, as in rarkit."""
DECODER_CODE, DECODER_WEIGHTS = "image_decoder.py", "image_decoder.safetensors"


def scale_at(guidance: Mapping[str, Any], step: int, total: int) -> float:
    """The scale at a step of ``total`` of the guidance schedule with this name and these settings."""
    name, scale = guidance["name"], guidance.get("scale", 1.0)
    if name == "constant":
        return float(scale)
    if name == "power_cosine":
        return float(1 + (scale - 1) * (1 - math.cos(math.pi * (step / total) ** guidance["power"])) / 2)
    if name == "linear":
        share = step / (total - 1) if total > 1 else 1.0
        return float((1 - share) * guidance.get("start", 1.0) + share * scale)
    if name == "interval":
        return float(scale) if guidance.get("start", 0.0) * total <= step < guidance.get("end", 1.0) * total else 1.0
    raise ValueError(f"there is no guidance schedule {name!r}: choose constant, power_cosine, linear or interval")


@final
class ClassifierFreeGuidance(LogitsProcessor):
    """Logits uncond + s · (cond − uncond), with a scale s for each step. Has a cache of its own for the model without a class."""

    def __init__(self, model: Any, guidance: Mapping[str, Any]) -> None:
        self.model = model
        self.scales = [scale_at(guidance, step, model.codes_per_image) for step in range(model.codes_per_image)]
        self.seen_BS = torch.empty(0, 0, dtype=torch.int64)
        self.cache: Any = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scale = self.scales[input_ids.shape[1] - self.model.prompt_length]
        if scale == 1:
            return scores
        ids_BS = input_ids.clone()
        ids_BS[:, self.model.prompt_length - 1] = self.model.no_class_id
        seen = self.seen_BS.shape[1]
        # Another batch, or rows that beam search has reordered: the cache is not theirs.
        if self.cache is None or seen >= ids_BS.shape[1] or not torch.equal(ids_BS[:, :seen], self.seen_BS):
            self.cache, seen = None, 0
        with torch.no_grad():
            output = self.model(ids_BS[:, seen:], use_cache=True, logits_to_keep=1, **{CACHE: self.cache})
        self.cache, self.seen_BS = output[CACHE], ids_BS
        unconditional_BV: Tensor = output.logits[:, -1].to(scores)
        guided_BV: Tensor = unconditional_BV + scale * (scores - unconditional_BV)
        return guided_BV


class ImageGeneration:
    """What a causal language model over codes has beyond ``generate``."""

    config: Any
    device: torch.device
    accepts_loss_kwargs = False
    """For transformers' Trainer: the loss is the mean over a batch."""

    @property
    @abstractmethod
    def scan_order_L(self) -> Tensor:
        """The raster index visited at each step, (L,) int64."""

    @property
    def prompt_length(self) -> int:
        """Ids before the first code; the last of them is the class."""
        return int(self.config.prompt_length)

    @property
    def codes_per_image(self) -> int:
        """L."""
        return int(self.config.seq_len)

    @property
    def no_class_id(self) -> int:
        """The id of "no class", the last one."""
        return int(self.config.embedding_rows) - 1

    def prompt(self, labels: Sequence[int] | Tensor) -> Tensor:
        """The ids to start from, (B, prompt length) int64, for classes 0 … C − 1.

        Raises:
            ValueError: a label is not one of the model's classes.
        """
        classes = self.config.num_classes
        labels_B = whole_numbers(labels, self.device)
        if labels_B is None:
            raise ValueError(f"labels are {labels}; pass whole numbers, of the model's classes 0 … {classes - 1}")
        labels_B = labels_B.reshape(-1)
        if ((labels_B < 0) | (labels_B >= classes)).any():
            raise ValueError(f"labels are {labels_B.tolist()}; the model's classes are 0 … {classes - 1}")
        return self._prompt(labels_B + (self.no_class_id - classes))

    def _prompt(self, class_ids_B: Tensor) -> Tensor:
        """cls, if the model has it, and the class."""
        first_BS = class_ids_B.new_full((len(class_ids_B), self.prompt_length - 1), self.config.codebook_size)
        return torch.cat([first_BS, class_ids_B[:, None]], dim=1)

    def generate(self, inputs: Tensor | None = None, **kwargs: Any) -> Any:
        """As in transformers. A column of class ids, (B, 1), is also a prompt.

        Raises:
            ValueError: there is no prompt, or its last id is not that of a class, or of no class.
        """
        ids_BS = kwargs.pop("input_ids", None) if inputs is None else inputs
        if ids_BS is None:
            raise ValueError("there is nothing to start from: pass model.prompt(labels)")
        if not isinstance(ids_BS, Tensor) or ids_BS.ndim != 2 or not ids_BS.shape[1] or whole_numbers(ids_BS, self.device) is None:
            raise ValueError("sequences start with ids, an integer tensor (B, S): pass model.prompt(labels)")
        place, first = min(self.prompt_length, ids_BS.shape[1]) - 1, self.no_class_id - self.config.num_classes
        wrong = [value for value in ids_BS[:, place].tolist() if not first <= value <= self.no_class_id]
        if wrong:
            raise ValueError(
                f"id {wrong[0]} is in the place of the class; classes have the ids {first} … {self.no_class_id - 1}, and no class "
                f"has {self.no_class_id}: pass model.prompt(labels)"
            )
        if ids_BS.shape[1] == 1 < self.prompt_length:
            ids_BS = self._prompt(ids_BS[:, 0])
        return super().generate(ids_BS, **kwargs)  # type: ignore[misc]

    def guidance(self, scale: float | None = None, power: float | None = None) -> LogitsProcessorList:
        """Classifier-free guidance, to pass to ``generate`` as ``logits_processor``.

        Args:
            scale: the same at every step, or what it rises to with a ``power``; None for the model's own schedule.
            power: of the power-cosine schedule, s_k = 1 + (scale − 1) · (1 − cos(π · (k / L)^power)) / 2.

        Raises:
            ValueError: one is no number from 0 to a million, or there is a power without a scale.
        """
        for name, value in (("scale", scale), ("power", power)):
            # A comparison with NaN is false.
            is_number = isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= MOST
            if value is not None and not is_number:
                raise ValueError(f"{name} is {value!r}; it must be a number from 0 to {MOST:,.0f}")
        if scale is None:
            if power is not None:
                raise ValueError("power-cosine guidance needs a scale: pass scale too")
            schedule = dict(self.config.guidance)
        elif power is None:
            schedule = {"name": "constant", "scale": scale}
        else:
            schedule = {"name": "power_cosine", "scale": scale, "power": power}
        return LogitsProcessorList([ClassifierFreeGuidance(self, schedule)])

    def grids(self, sequences_BS: Tensor) -> Tensor:
        """The codes of finished sequences where they belong in the image: (B, grid height, grid width) int64.

        Raises:
            ValueError: the sequences are not finished.
        """
        expected = self.prompt_length + self.codes_per_image
        if sequences_BS.shape[1] != expected:
            raise ValueError(f"sequences have {sequences_BS.shape[1]} ids; a finished one has {expected}")
        codes_BL = torch.empty_like(sequences_BS[:, self.prompt_length :])
        codes_BL[:, self.scan_order_L.to(codes_BL.device)] = sequences_BS[:, self.prompt_length :]
        return codes_BL.reshape(-1, *self.config.grid)

    def images(self, sequences_BS: Tensor) -> Tensor:
        """Finished sequences decoded to uint8 images (B, H, W, C).

        Raises:
            ValueError: the model has no decoder, because its tokenizer has none that rarkit exports.
        """
        if self.config.image_decoder is None:
            raise ValueError("this model was exported without an image decoder: decode model.grids(sequences) with its tokenizer")
        decoder = getattr(self, "_image_decoder", None)
        if decoder is None:
            place = self.config._name_or_path
            built = get_class_from_dynamic_module(f"{Path(DECODER_CODE).stem}.ImageDecoder", place)
            decoder = built(self.config.image_decoder, cached_file(place, DECODER_WEIGHTS))
            # Not as an attribute of a module, which would put it among the weights of the model.
            object.__setattr__(self, "_image_decoder", decoder)
        images_BHWC: Tensor = decoder.decode(self.grids(sequences_BS))
        return images_BHWC

    def sample_images(
        self, labels: Sequence[int] | Tensor, *, scale: float | None = None, power: float | None = None, **kwargs: Any
    ) -> Tensor:
        """One uint8 image (H, W, C) for each label, with guidance as in ``guidance``; the rest is for ``generate``."""
        return self.images(self.generate(self.prompt(labels), logits_processor=self.guidance(scale, power), **kwargs))

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers, with the image decoder."""
        place = self.config._name_or_path
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        if self.config.image_decoder is not None:
            for name in (DECODER_CODE, DECODER_WEIGHTS):
                source = Path(cached_file(place, name))
                if source.parent.resolve() != Path(save_directory).resolve():
                    shutil.copyfile(source, Path(save_directory) / name)

    def next_code_loss(self, logits_BSV: Tensor, labels_BS: Tensor | None) -> Tensor | None:
        """Mean nats per code: the logits at s predict the label at s + 1. Ids that are no codes do not count."""
        if labels_BS is None:
            return None
        codes = self.config.codebook_size
        targets_BS = labels_BS[:, 1:]
        targets_BS = targets_BS.masked_fill((targets_BS < 0) | (targets_BS >= codes), -100)
        return functional.cross_entropy(logits_BSV[:, :-1].float().flatten(0, 1), targets_BS.flatten(), ignore_index=-100)


def whole_numbers(values: Any, device: torch.device) -> Tensor | None:
    """Whole numbers as int64 on a device; None of anything else. 1.0 and True are none."""
    if isinstance(values, list | tuple) and any(isinstance(value, bool) for value in values):
        return None
    try:
        tensor = torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    is_whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    return tensor.long() if is_whole else None


def refuse_padding(attention_mask: Tensor | None) -> None:
    """Raises ValueError for a mask with zeros: all sequences have the same length."""
    if attention_mask is not None and attention_mask.ndim == 2 and not torch.compiler.is_compiling() and not attention_mask.all():
        raise ValueError("sequences of codes have a fixed length and no padding: leave out attention_mask")
