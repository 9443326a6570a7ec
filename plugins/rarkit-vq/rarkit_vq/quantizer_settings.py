"""The quantizers that a recipe can choose, each a table ``quantizer = { name = "…" }``. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal, final

from pydantic import Field, field_validator

from rarkit import Settings

MOST_CODES = 2**16
Codes = Annotated[int, Field(ge=2, le=MOST_CODES)]
Weight = Annotated[float, Field(ge=0.0, le=1e3)]


class Quantizer(Settings, ABC):
    """How a token's vector becomes one of a number of codes."""

    few_used: ClassVar[str]
    """What to do where few of the codes are in use: the last sentence of that warning."""

    @abstractmethod
    def codebook_size(self) -> int:
        """V, the number of codes."""


@final
class VQ(Quantizer):
    """A codebook of vectors; a code is the nearest of them (van den Oord et al., arXiv 1711.00937).

    With ``start = "random"`` the codes are moving averages of the vectors that they stand for; with ``start = "kmeans"`` they are
    trained by gradient descent with the rest.
    """

    few_used: ClassVar[str] = (
        'Lower quantizer.codes, or, with start = "random", raise quantizer.dead_below or set quantizer.name = "fsq".'
    )

    name: Literal["vq"] = "vq"
    """Selects this quantizer."""
    codes: Codes = 1024
    """V, the codebook size."""
    dimensions: Annotated[int, Field(ge=1, le=1024)] = 16
    """Numbers of a code's vector. With ``start = "kmeans"`` there are as many as a patch has, and this is not used."""
    cosine: bool = False
    """Compare directions rather than positions; not with ``start = "kmeans"``."""
    decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.97
    """Decay of the moving averages in a step. Not with ``start = "kmeans"``."""
    commitment: Weight = 0.25
    """Weight of the term that draws vectors to their codes."""
    dead_below: Annotated[float, Field(ge=0.0, le=1e6)] = 0.05
    """A code that stands for less than this part of its equal share (the vectors of a batch, divided by the codes), as a moving
    average, is put to one of the batch's vectors; 0 for never. Not with ``start = "kmeans"``."""

    def codebook_size(self) -> int:
        return self.codes


@final
class FSQ(Quantizer):
    """Each number of a token's vector is rounded to one of a few levels (arXiv 2309.15505): there is no codebook to collapse."""

    few_used: ClassVar[str] = "Use fewer or lower quantizer.levels, or set quantizer.even = true."

    name: Literal["fsq"] = "fsq"
    """Selects this quantizer."""
    levels: Annotated[tuple[Annotated[int, Field(ge=3, le=256)], ...], Field(min_length=1, max_length=16)] = (8, 5, 5, 5)
    """Levels of each number; their product is the codebook size."""
    even: bool = False
    """Squash with 2 σ(1.6 z) − 1 instead of tanh: what is normally distributed is then spread evenly before it is rounded (iFSQ,
    arXiv 2601.17124)."""

    @field_validator("levels")
    @classmethod
    def _bounded(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(levels) > MOST_CODES:
            raise ValueError(
                f"levels {list(levels)} make {math.prod(levels)} codes, more than {MOST_CODES}: use fewer or lower ones"
            )
        return levels

    def codebook_size(self) -> int:
        return math.prod(self.levels)


@final
class SimVQ(Quantizer):
    """A codebook that is a trained linear map of fixed random vectors, so that all codes move together (arXiv 2411.02038)."""

    few_used: ClassVar[str] = 'Lower quantizer.codes, or set quantizer.name = "fsq".'

    name: Literal["simvq"] = "simvq"
    """Selects this quantizer."""
    codes: Codes = 1024
    """V, the codebook size."""
    dimensions: Annotated[int, Field(ge=2, le=1024)] = 16
    """Numbers of a code's vector."""
    commitment: Weight = 1.0
    """Weight of the terms that draw vectors and codes together."""

    def codebook_size(self) -> int:
        return self.codes


@final
class LFQ(Quantizer):
    """The signs of a token's vector are the bits of its code (MAGVIT-v2, arXiv 2310.05737)."""

    few_used: ClassVar[str] = 'Lower quantizer.bits, raise quantizer.entropy, or set quantizer.name = "fsq".'

    name: Literal["lfq"] = "lfq"
    """Selects this quantizer."""
    bits: Annotated[int, Field(ge=1, le=16)] = 10
    """Bits of a code; the codebook size is 2 to the power of this."""
    entropy: Weight = 0.1
    """Weight of the entropy terms: each vector near its code, and all codes in use."""
    commitment: Weight = 0.25
    """Weight of the term that draws vectors to their codes."""

    def codebook_size(self) -> int:
        return 1 << self.bits


AnyQuantizer = Annotated[VQ | FSQ | SimVQ | LFQ, Field(discriminator="name")]
"""Any quantizer, chosen by ``name``."""
