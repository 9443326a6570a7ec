"""True and False in place of numbers. To Python they are 1 and 0, and to pydantic, too; to whoever wrote them they were none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import numpy as np
from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails

Location = tuple[int | str, ...]


def check_numbers(model: type[BaseModel], values: Any) -> None:
    """Refuses True and False, of Python or of NumPy, where a field of a model takes numbers and no truth values.

    Text that spells a number is left to pydantic, which reads it: a bare word after ``--set`` is text, and so is ``"inf"`` in JSON.

    Raises:
        ValidationError: of pydantic, which names each of them.
    """
    if not isinstance(values, Mapping):
        return
    mistakes: list[InitErrorDetails] = []
    for name, field in model.model_fields.items():
        for place, value in _truth_values(values.get(name), (name,)):
            types = list(_types(field.annotation))
            if (int in types or float in types) and not any(taken in types for taken in (bool, Any, object)):
                mistakes.append({"type": "float_type" if float in types else "int_type", "loc": place, "input": value})
    if mistakes:
        raise ValidationError.from_exception_data(model.__name__, mistakes)


def _truth_values(value: Any, place: Location) -> Iterator[tuple[Location, Any]]:
    """Those in a value, and in a list or tuple, with their places."""
    if isinstance(value, bool | np.bool_):
        yield place, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            if isinstance(item, bool | np.bool_):
                yield (*place, index), item


def _types(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from map(type, arguments)
    elif not arguments:
        yield annotation
    else:
        for inner in arguments[:1] if origin is Annotated else arguments:
            yield from _types(inner)
