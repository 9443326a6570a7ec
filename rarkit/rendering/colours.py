"""Colours that pictures, charts and the terminal share."""

from __future__ import annotations

Colour = tuple[int, int, int]

PAPER: Colour = (252, 252, 250)
INK: Colour = (40, 40, 44)
FAINT: Colour = (222, 222, 217)

_WAY: tuple[Colour, ...] = ((48, 96, 210), (122, 84, 196), (186, 72, 148), (220, 94, 74), (226, 146, 26))
"""Ever lighter from blue to amber, so that brightness alone shows the way too, and visible on white and on black."""


def along(share: float) -> Colour:
    """The colour of a place on the way from start (0, blue) to end (1, amber)."""
    place = min(max(share, 0.0), 1.0) * (len(_WAY) - 1)
    index = min(int(place), len(_WAY) - 2)
    part = place - index
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(_WAY[index], _WAY[index + 1], strict=True))
    return red, green, blue


def css(colour: Colour) -> str:
    """The colour as style sheets and rich write it: ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
