"""How large numbers of a recipe may be. Recipes may be strangers', and some numbers become memory or time before anything runs.

Each bound lies well above what anybody needs, and low enough for a plan to take seconds and less than a gigabyte.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rarkit.images import MOST_CLASSES

MOST_TOKENS = 2**20
"""Tokens of an image. Orders are made for plans: 8 bytes a token, and a call of the guidance schedule for each."""
Tokens = Annotated[int, Field(gt=0, le=MOST_TOKENS)]
MOST_SAMPLES = 2**22
"""Samples of a recipe; ImageNet has 1.3 million images. Plans hold a label and a batch of each: up to 200 MB."""

Steps = Annotated[int, Field(gt=0, le=10**9)]
"""Of a training: 30 years at a step a second."""
Step = Annotated[int, Field(ge=0, le=10**9)]
"""A step of a training, or a number of steps that may be zero."""
Batch = Annotated[int, Field(gt=0, le=2**20)]
"""Images at a time. Plans look at each divisor of a batch size: a million takes a tenth of a second."""
PerClass = Annotated[int, Field(gt=0, le=MOST_SAMPLES)]
"""Samples of a class."""
Classes = Annotated[int, Field(gt=0, le=MOST_CLASSES)]
"""Classes that are numbered: each gets a name, 60 bytes."""
Images = Annotated[int, Field(gt=0, le=10**9)]
"""Images of a data set, or that a part learns from, which it draws: 8 bytes each."""
Side = Annotated[int, Field(gt=0, le=2**13)]
"""Pixels of a side. An image of this size takes 200 MB, and several are read at a time."""
Width = Annotated[int, Field(gt=0, le=2**16)]
"""Of a layer; four times that of the widest language models."""
Hidden = Annotated[int, Field(gt=0, le=2**18)]
"""Width inside an MLP, usually four times that of the layer."""
Depth = Annotated[int, Field(gt=0, le=2**12)]
"""Layers, or blocks."""
Codes = Annotated[int, Field(ge=2, le=2**20)]
"""Of a codebook."""
Rounds = Annotated[int, Field(gt=0, le=10**6)]
"""Repetitions of something that takes a second or so."""
Workers = Annotated[int, Field(ge=0, le=1024)]
"""Processes on one machine."""
Rate = Annotated[float, Field(gt=0, le=1e6)]
"""A learning rate, a temperature and the like: beyond, float32 overflows in no time."""
RateOrZero = Annotated[float, Field(ge=0, le=1e6)]
"""A rate that may be zero."""
