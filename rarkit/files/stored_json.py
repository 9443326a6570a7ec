"""Reading JSON that lies in a file: within bounds, and into a model. Nothing else in rarkit parses what was stored."""

from __future__ import annotations

import codecs
from typing import Annotated, TypeVar, final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel, StringConstraints, ValidationError

from rarkit.errors import StoreError, UserError

LARGEST = 2**20
"""Bytes of a file with JSON, unless its reader says more."""
MOST_TABLES, MOST_VALUES = 2**18, 2**22
"""Tables with lists, and values, in what is larger than ``LARGEST``: in memory they take up to a hundred times their bytes."""
LONGEST_REASON = 200

Model = TypeVar("Model", bound=BaseModel)
Format = Annotated[int, Field(ge=1, lt=2**31)]
Text = Annotated[str, StringConstraints(max_length=2**20, pattern=r"^[^\x00]*$")]


@final
class JsonTable(RootModel[dict[str, JsonValue]]):
    """Any table."""

    model_config = ConfigDict(strict=True)


@final
class Head(BaseModel):
    """The number of the format, which tells whether the rest can be read; 1 where there is none."""

    model_config = ConfigDict(strict=True)

    format: Format = 1


def parsed(model: type[Model], data: bytes, most: int = LARGEST) -> Model:
    """JSON as a model.

    Args:
        model: it should be strict, and pass over what it does not know, which a newer rarkit may have written.
        data: the JSON, at most 200 tables deep.
        most: how many bytes it may have.

    Raises:
        ValueError: it has too many bytes, tables or values, is no JSON, or not as the model says. The message is a few words
            without anything that was found in values.
    """
    if len(data) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    if len(data) > LARGEST and (data.count(b"{") + data.count(b"[") > MOST_TABLES or data.count(b",") > MOST_VALUES):
        raise ValueError("it has too many values")
    try:
        return model.model_validate_json(data.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        raise ValueError(first_mistake(error)) from error


def read_json(
    model: type[Model],
    data: bytes,
    place: str,
    cure: str,
    *,
    most: int = LARGEST,
    newest: int | None = None,
    raising: type[UserError] = StoreError,
) -> Model:
    """JSON as a model, or one message.

    Args:
        model, data, most: as for ``parsed``.
        place: where it was found, for the message.
        cure: what to do, as a sentence.
        newest: the newest format that this rarkit reads; None where there are no numbers of formats.
        raising: the error.

    Raises:
        UserError: ``raising``, if it is damaged, or of a newer rarkit.
    """
    try:
        if newest is not None and (number := parsed(Head, data, most).format) > newest:
            raise raising(f"{place} was written by a newer rarkit (format {number}; this one reads up to {newest}). Update rarkit.")
        return parsed(model, data, most)
    except ValueError as error:
        raise raising(f"{place} is damaged ({error}). {cure}") from error


def first_mistake(error: ValidationError) -> str:
    """The first thing that is wrong, after its place in the data; nothing of what was found there."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
    # Names of keys may be anything.
    place = ".".join(str(part) if isinstance(part, int) or part.isidentifier() else ascii(part) for part in wrong["loc"])
    return f"{place}: {wrong['msg']}"[:LONGEST_REASON] if place else wrong["msg"][:LONGEST_REASON]
