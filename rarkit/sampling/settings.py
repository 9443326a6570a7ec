"""How tokens are drawn from logits, and the recipe's ``[sample]`` table. Imports no torch."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any, final

from pydantic import BeforeValidator, Field, InstanceOf, SerializeAsAny, ValidationError

from rarkit.errors import UserError, did_you_mean
from rarkit.registry.bounds import Batch, PerClass, Rate
from rarkit.registry.component import NotInFingerprint, Seed, Settings
from rarkit.registry.shown import shown
from rarkit.sampling.guidance import Constant, Guidance, GuidanceSchedule, as_schedule
from rarkit.sampling.precision import CachePrecision, SamplingPrecision


class Choice(Settings, ABC):
    """How tokens are drawn from a model's logits."""

    guidance: SerializeAsAny[GuidanceSchedule] = Constant()
    """Classifier-free guidance scale over the steps of the sequence."""
    temperature: Rate = 1.0
    """Divides the logits, after guidance. For the likeliest token at each step, set ``top_k = 1``."""
    top_k: Annotated[int, Field(gt=0, le=2**20)] | None = None
    """Draw from the k likeliest tokens only."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Draw from the smallest set of likeliest tokens whose probabilities sum to at least this."""

    @final
    def for_transformers(self) -> dict[str, Any]:
        """The same choice for ``generate`` of Hugging Face transformers, without guidance."""
        # None would stand for defaults, which are others there.
        return {"do_sample": True, "temperature": self.temperature, "top_k": self.top_k or 0, "top_p": self.top_p or 1.0}


@final
class TokenChoice(Choice):
    """The choice made by the keyword arguments of ``generate``, which takes a number as guidance too."""

    guidance: InstanceOf[GuidanceSchedule] = Constant()

    @classmethod
    def of(cls, settings: dict[str, Any]) -> TokenChoice:
        """The choice with these settings; None selects the default.

        Raises:
            UserError: a setting does not exist or has an invalid value.
        """
        for name in settings:
            if name not in cls.model_fields:
                raise UserError(
                    f"there is no setting {name!r} for choosing tokens{did_you_mean(name, cls.model_fields)} "
                    f"Settings are {', '.join(cls.model_fields)}."
                )
        chosen = {name: value for name, value in settings.items() if value is not None}
        if "guidance" in chosen:
            chosen["guidance"] = as_schedule(chosen["guidance"])
        try:
            return cls.model_validate(chosen)
        except ValidationError as error:
            mistakes = (
                f"{mistake['loc'][0]} is {mistake['input']!r}: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
                for mistake in error.errors()
            )
            raise UserError("; ".join(mistakes)) from error


LARGEST_LABEL = 2**31


def _class_name(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, int) and abs(value) > LARGEST_LABEL):
        raise ValueError(f"found {shown(value)}; a class is given by its label, a whole number, or by its name")
    return value


ClassName = Annotated[int | str, BeforeValidator(_class_name)]
"""A class by label, name or synset id, as ``rarkit.recipe.classes`` reads it."""


@final
class SampleSettings(Choice):
    """``[sample]``: the images to sample, and how their tokens are drawn."""

    guidance: Guidance = Constant()
    """Classifier-free guidance scale over the steps of the sequence."""
    seed: Seed | None = None
    """Seed of the sampling noise. Defaults to the recipe's ``seed``."""
    per_class: PerClass = 50
    """Images per class."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1)] | None = None
    """Labels or names of the classes to sample, each once. Defaults to all classes."""
    precision: SamplingPrecision = "float32"
    """Type of weights and cache; with ``"int8"`` (CPU only), the blocks' projections are int8 and the rest is bfloat16."""
    kv_cache: CachePrecision = "same"
    """Type of the KV cache: that of the weights, or float8 (e4m3), at half the memory of bfloat16."""
    batch_size: Annotated[Batch, NotInFingerprint()] = 64
    """Images sampled at a time. In float32 the samples do not depend on it."""
    npz: Annotated[bool, NotInFingerprint()] = False
    """Write ``samples.npz`` (``arr_0``, uint8 NHWC) for the ADM evaluator."""
