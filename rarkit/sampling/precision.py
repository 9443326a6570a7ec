"""The number formats in which models are sampled. Imports no torch, since planning reads it."""

from __future__ import annotations

from typing import Literal

SamplingPrecision = Literal["float32", "bfloat16", "int8"]
CachePrecision = Literal["same", "float8"]
MODEL_DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16"}
"""Torch's name of the type that the model is loaded in, by precision."""
