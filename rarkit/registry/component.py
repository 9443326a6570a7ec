"""The base of every interchangeable part: a frozen pydantic model that is also its own recipe table."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, final, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo


@final
@dataclass(frozen=True)
class NotInFingerprint:
    """Marks a field that changes how a result is computed but not what it is: ``Annotated[int, NotInFingerprint()]``."""

    tolerance: float = 0.0
    """How far numbers may move, relative to the largest of their array (of all weights, for a weight); 0: not a bit.

    Tests hold each field to its mark."""


@final
class Placed(str):
    """A string that remembers the folder (or URL) of the file in which it was written."""

    folder: str

    def __new__(cls, value: str, folder: str) -> Placed:
        placed = super().__new__(cls, value)
        placed.folder = folder
        return placed


def _relative_to_file(location: Any) -> Any:
    if not isinstance(location, Placed) or "://" in location or location.startswith(("/", "~")):
        return location
    if "::" in location.folder:
        return f"{location.folder.rstrip('/')}/{location}"
    protocol, separator, folder = location.folder.rpartition("://")
    joined = f"{folder.rstrip('/')}/{location}"
    plain = os.path.normpath(joined)
    # Where the recipe's folder is a symbolic link, its ".." lies elsewhere than the path says.
    same = bool(separator) or os.path.realpath(plain) == os.path.realpath(joined)
    return protocol + separator + (plain if same else joined)


Location = Annotated[str, BeforeValidator(_relative_to_file)]
"""A path or fsspec URL. One written in a recipe is relative to the recipe's own folder, any other to the working directory."""


class Settings(BaseModel, ABC):
    """A frozen set of settings: unknown keys are refused, every field carries a docstring (it becomes schema and docs)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, protected_namespaces=()
    )

    def content(self) -> Any:
        """What the settings point to, where that lies outside of them (a file's checksum, say); part of the fingerprint.

        Returns plain JSON data, or None where the settings say it all.
        """
        return None

    @final
    def identity(self) -> dict[str, Any]:
        """All that decides the result, as plain JSON data.

        Left out are fields marked ``NotInFingerprint`` and fields at their default: a setting that is added later leaves the
        fingerprints of what was made before it as they are. Parts are always in, with their names and versions.
        """
        identity: dict[str, Any] = {}
        if isinstance(self, Component):
            identity["version"] = type(self).version
        for name, field in type(self).model_fields.items():
            if any(isinstance(mark, NotInFingerprint) for mark in field.metadata):
                continue
            value = getattr(self, name)
            plain = _plain(value)
            if isinstance(value, Component) or _is_literal_constant(field) or not _same(plain, _default(field)):
                identity[name] = plain
        content = self.content()
        if content is not None:
            identity["content"] = content
        return identity


def _plain(value: Any) -> Any:
    """Settings, dataclasses and containers of them as JSON data."""
    if isinstance(value, Settings):
        return value.identity()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _is_literal_constant(field: FieldInfo) -> bool:
    """Whether the field can have one value only, as ``name: Literal["spiral"]``: it tells one class from another."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _default(field: FieldInfo) -> Any:
    return ... if field.is_required() else _plain(field.get_default(call_default_factory=True))


def _same(value: Any, default: Any) -> bool:
    # As JSON: to a permutation schedule 1 is a step and 1.0 the end of training, though 1 == 1.0.
    return default is not ... and json.dumps(value, sort_keys=True) == json.dumps(default, sort_keys=True)


class Component(Settings, ABC):
    """A part that a recipe can name. Subclasses are final and set ``name: Literal["…"] = "…"``.

    The class is the part: its fields are the keys of the recipe's table, its docstring the documentation, and ``version`` is
    raised whenever the same settings begin to give a different result.
    """

    kind: ClassVar[str]
    """The registry it belongs to; set by the family's base class."""
    version: ClassVar[int] = 1
    name: str
    """The name by which recipes choose this part."""

    def capability(self, device: str, dtype: str) -> str | None:
        """Why this part cannot work here, or None if it can.

        Args:
            device: ``"cpu"``, ``"cuda"``, …
            dtype: ``"float32"``, ``"bfloat16"``, …
        """
        return None

    def rehearsed(self) -> Self:
        """The part as a rehearsal uses it: quick, and without files (random weights, few steps). Itself unless overridden."""
        return self

    @classmethod
    @final
    def part_name(cls) -> str:
        """The name that recipes use, read from the class."""
        return str(cls.model_fields["name"].default)
