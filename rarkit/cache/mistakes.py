"""What is wrong with JSON that is not what it should be, in a few words."""

from __future__ import annotations

from pydantic import ValidationError

LONGEST = 200


def first_mistake(error: ValidationError) -> str:
    """The first thing that is wrong, after its place in the data; nothing of what was found there."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, wrong["loc"]))
    return f"{place}: {wrong['msg']}"[:LONGEST] if place else wrong["msg"][:LONGEST]
