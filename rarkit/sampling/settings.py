"""How tokens are chosen, and the recipe's ``[sample]`` table. Imports no torch."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Any, final

from pydantic import Field, InstanceOf, PositiveFloat, PositiveInt, SerializeAsAny, ValidationError

from rarkit.errors import UserError, did_you_mean
from rarkit.registry.component import NotInFingerprint, Settings
from rarkit.sampling.guidance import Constant, Guidance, GuidanceSchedule
from rarkit.sampling.precision import CachePrecision, SamplingPrecision


class Choice(Settings, ABC):
    """From a model's logits to tokens: all that ``generate`` asks besides labels, order and noise."""

    guidance: SerializeAsAny[GuidanceSchedule] = Constant()
    """Classifier-free guidance over the steps of the sequence."""
    temperature: PositiveFloat = 1.0
    """Logits are divided by it, after guidance; ``top_k = 1`` takes the likeliest token."""
    top_k: PositiveInt | None = None
    """Draw from the k likeliest tokens only."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Draw from the likeliest tokens that together reach this probability."""


@final
class TokenChoice(Choice):
    """How tokens are chosen, by itself: what the keyword arguments of ``generate`` make. Takes any guidance schedule."""

    guidance: InstanceOf[GuidanceSchedule] = Constant()

    @classmethod
    def of(cls, settings: dict[str, Any]) -> TokenChoice:
        """The choice with these settings; None stands for a setting's default.

        Raises:
            UserError: there is no such setting, or it cannot take the value.
        """
        for name in settings:
            if name not in cls.model_fields:
                raise UserError(
                    f"there is no setting {name!r} for choosing tokens{did_you_mean(name, cls.model_fields)} "
                    f"Settings are {', '.join(cls.model_fields)}."
                )
        try:
            return cls.model_validate({name: value for name, value in settings.items() if value is not None})
        except ValidationError as error:
            mistakes = (f"{one['loc'][0]} is {one['input']!r}: {one['msg'][0].lower()}{one['msg'][1:]}" for one in error.errors())
            raise UserError("; ".join(mistakes)) from error


@final
class SampleSettings(Choice):
    """``[sample]``: how many images of each class, and how tokens are drawn."""

    guidance: Guidance = Constant()
    """Classifier-free guidance over the steps of the sequence."""
    per_class: PositiveInt = 50
    """Images for each class."""
    classes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Labels of the classes to draw, each once; all of them unless given."""
    precision: SamplingPrecision = "float32"
    """Type of weights and cache while sampling; int8, on a CPU alone, is of the blocks' projections, and all else bfloat16."""
    kv_cache: CachePrecision = "same"
    """Type of the KV cache: the same as the weights', or float8 (e4m3), which takes half the memory of bfloat16."""
    batch_size: Annotated[PositiveInt, NotInFingerprint()] = 64
    """Images drawn at a time; in float32 the samples do not depend on it."""
    npz: Annotated[bool, NotInFingerprint()] = False
    """Whether to write ``samples.npz`` (``arr_0``, uint8 NHWC), which the ADM evaluator reads."""
