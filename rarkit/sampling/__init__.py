"""Sampling from any model family: guidance, noise, token choice and ``generate``. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names

if TYPE_CHECKING:
    from rarkit.sampling.choice import distribution as distribution
    from rarkit.sampling.choice import draw as draw
    from rarkit.sampling.choice import pick as pick
    from rarkit.sampling.decoder import Decodable as Decodable
    from rarkit.sampling.decoder import Decoder as Decoder
    from rarkit.sampling.generation import Step as Step
    from rarkit.sampling.generation import decode as decode
    from rarkit.sampling.generation import generate as generate
    from rarkit.sampling.guidance import Constant as Constant
    from rarkit.sampling.guidance import Guidance as Guidance
    from rarkit.sampling.guidance import GuidanceSchedule as GuidanceSchedule
    from rarkit.sampling.guidance import Interval as Interval
    from rarkit.sampling.guidance import Linear as Linear
    from rarkit.sampling.guidance import PowerCosine as PowerCosine
    from rarkit.sampling.plain import PlainDecoder as PlainDecoder
    from rarkit.sampling.sample_noise import noise as noise
    from rarkit.sampling.settings import Choice as Choice
    from rarkit.sampling.settings import TokenChoice as TokenChoice

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rarkit.sampling.choice": ["distribution", "draw", "pick"],
        "rarkit.sampling.decoder": ["Decodable", "Decoder"],
        "rarkit.sampling.generation": ["Step", "decode", "generate"],
        "rarkit.sampling.guidance": ["Constant", "Guidance", "GuidanceSchedule", "Interval", "Linear", "PowerCosine"],
        "rarkit.sampling.sample_noise": ["noise"],
        "rarkit.sampling.plain": ["PlainDecoder"],
        "rarkit.sampling.settings": ["Choice", "TokenChoice"],
    },
)
