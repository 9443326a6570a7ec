"""The number formats of sampling. Imports no torch, because planning uses it."""

from __future__ import annotations

from typing import Literal

SamplingPrecision = Literal["float32", "bfloat16", "int8"]
CachePrecision = Literal["same", "float8"]
MODEL_DTYPES = {"float32": "float32", "bfloat16": "bfloat16", "int8": "bfloat16"}
"""The torch dtype in which the model is loaded, by sampling precision."""
