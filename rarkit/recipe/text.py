"""A recipe as TOML, and the JSON Schema of recipes."""

from __future__ import annotations

from typing import Any

import tomli_w

from rarkit.printable import printable_strings
from rarkit.recipe.schema import Recipe, recipe_model
from rarkit.registry.kinds import Parts


def to_toml(recipe: Recipe) -> str:
    """The whole recipe as TOML, with all defaults; ``extends``, ``unset`` and overrides are resolved. It is fit to be printed."""
    return printable_strings(tomli_w.dumps(_without_none(recipe.model_dump(mode="json"))))


def json_schema(parts: Parts) -> dict[str, Any]:
    """The JSON Schema of recipes with the installed parts, including ``extends`` and ``unset``."""
    schema = recipe_model(parts).model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "Path of the recipe that this one extends, relative to this file.",
    }
    schema["properties"]["unset"] = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Keys and tables of the extended recipe that are dropped before those of this file are set.",
    }
    partial: dict[str, Any] = _partial(schema)
    return partial


def _partial(schema: Any) -> Any:
    """The schema with nothing required: a recipe that extends another may leave out any key, even a part's ``name``."""
    if isinstance(schema, list):
        return [_partial(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A table without a name may match several parts.
    renamed = {"oneOf": "anyOf"}
    left_out = {"required", "discriminator"} if "type" in schema or "oneOf" in schema else set()
    return {renamed.get(key, key): _partial(value) for key, value in schema.items() if key not in left_out}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
