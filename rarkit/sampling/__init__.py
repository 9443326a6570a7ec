"""Sampling: guidance schedules, noise, decoders. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rarkit.sampling.guidance import Constant, Guidance, GuidanceSchedule, Interval, Linear, PowerCosine
from rarkit.sampling.noise import noise

if TYPE_CHECKING:
    from rarkit.sampling.decoder import Decoder
    from rarkit.models.rar.decoding.decoder import CachedDecoder
    from rarkit.sampling.choice import distribution, draw, pick
    from rarkit.sampling.generation import Step, decode, generate
    from rarkit.sampling.plain import PlainDecoder
    from rarkit.models.rar.decoding.prepared import Prepared, prepare

__all__ = [
    "generate",
    "decode",
    "prepare",
    "Prepared",
    "Step",
    "Guidance",
    "GuidanceSchedule",
    "Constant",
    "Linear",
    "PowerCosine",
    "Interval",
    "noise",
    "distribution",
    "draw",
    "pick",
    "Decoder",
    "CachedDecoder",
    "PlainDecoder",
]

_ON_USE = {
    "generate": "rarkit.sampling.generation",
    "decode": "rarkit.sampling.generation",
    "prepare": "rarkit.models.rar.decoding.prepared",
    "Prepared": "rarkit.models.rar.decoding.prepared",
    "Step": "rarkit.sampling.generation",
    "distribution": "rarkit.sampling.choice",
    "draw": "rarkit.sampling.choice",
    "pick": "rarkit.sampling.choice",
    "Decoder": "rarkit.sampling.decoder",
    "CachedDecoder": "rarkit.models.rar.decoding.decoder",
    "PlainDecoder": "rarkit.sampling.plain",
}


def __getattr__(name: str) -> Any:
    if name in _ON_USE:
        from importlib import import_module

        return getattr(import_module(_ON_USE[name]), name)
    raise AttributeError(f"module 'rarkit.sampling' has no attribute {name!r}")
