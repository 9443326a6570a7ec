"""The base class of all parts. A part is a frozen pydantic model whose fields are the keys of its recipe table."""

from __future__ import annotations

import dataclasses
import json
import os
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, dataclass_transform, final, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    SerializationInfo,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from rarkit.errors import UserError, did_you_mean
from rarkit.registry.registered import source_of
from rarkit.registry.truth_values import check_numbers

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


@final
@dataclass(frozen=True)
class NotInFingerprint:
    """Marks a field that changes how a result is computed but not the result: ``Annotated[int, NotInFingerprint()]``."""

    tolerance: float = 0.0
    """How far numbers may differ, relative to the largest of their array (for a weight, of all weights); 0 means bit-identical.

    Tests hold each field to this tolerance."""


@final
class Placed(str):
    """A string that remembers the folder (or URL) of the file it was read from."""

    folder: str

    def __new__(cls, value: str, folder: str) -> Placed:
        placed = super().__new__(cls, value)
        placed.folder = folder
        return placed


def relative_to_its_file(location: Any) -> Any:
    """A path or URL as it is valid in the working directory, if it is ``Placed``; else the value itself, a path object as text."""
    if isinstance(location, os.PathLike):
        return os.fspath(location)
    return each_path(location, partial(_within, location.folder)) if isinstance(location, Placed) else location


def each_path(location: str, changed: Callable[[str], str]) -> str:
    """A location in which the paths are changed: of what ``::`` joins, all but URLs and names of protocols."""
    *links, last = location.split("::")
    if links:
        from rarkit.files.protocols import is_name_of_protocol

        links = [link if "://" in link or is_name_of_protocol(link) else changed(link) for link in links]
    return "::".join([*links, last if not last or "://" in last else changed(last)])


def _within(place: str, path: str) -> str:
    """A path that starts at a folder or URL, without detours."""
    if path.startswith(("/", "~")):
        return path
    if "::" in place:
        from rarkit.files.locations import within

        return within(place, path)
    protocol, separator, folder = place.rpartition("://")
    joined = f"{folder.rstrip('/')}/{path}"
    plain = os.path.normpath(joined)
    # If the recipe's folder is a symbolic link, ".." resolves to the parent of the link's target.
    same = bool(separator) or os.path.realpath(plain) == os.path.realpath(joined)
    return protocol + separator + (plain if same else joined)


ABSOLUTE = "absolute"
"""The key of the serialization context that asks for paths that are valid in any working directory."""


def _from_anywhere(location: str, info: SerializationInfo) -> str:
    if not (info.context or {}).get(ABSOLUTE):
        return location
    return each_path(location, lambda path: os.path.abspath(os.path.expanduser(path)))


@final
@dataclass(frozen=True)
class IsLocation:
    """Marks a string that is a path or URL, so that plans can list what a run will read."""


LONGEST_LOCATION = 4096
"""Characters of a path, as on Linux, and of a URL."""
Location = Annotated[
    str,
    Field(max_length=LONGEST_LOCATION),
    BeforeValidator(relative_to_its_file),
    PlainSerializer(_from_anywhere),
    IsLocation(),
]
"""A path or fsspec URL. A relative path in a recipe starts at the recipe's folder, any other at the working directory."""


Seed = Annotated[int, Field(ge=0, lt=2**63)]


@final
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
class FrozenModel(ModelMetaclass):
    """Tells type checkers that the fields of settings are read-only, which pydantic's own metaclass does not.

    A read-only field may be narrowed in a subclass, as every part does with ``name: Literal["…"] = "…"``.

    What a script gives a class of settings in a call is told as a recipe's mistakes are: positions, and names that do not exist.
    """

    # Type checkers know better what a call takes.
    if not TYPE_CHECKING:

        def __call__(self, *values: Any, **settings: Any) -> Any:
            if values:
                raise UserError(f"{self.__name__} takes its settings by name. {_choice_of(self)}")
            try:
                return super().__call__(**settings)
            except ValidationError as error:
                for name in settings:
                    if name not in self.model_fields and error.title == self.__name__:
                        hint = did_you_mean(name, self.model_fields)
                        error.add_note(f"{self.__name__} has no setting {name!r}{hint} {_choice_of(self)}")
                raise


def _choice_of(cls: type[BaseModel]) -> str:
    """The settings of a class in a sentence, as they are written in a call."""
    # The name of a part is that of its class.
    names = [name for name, field in cls.model_fields.items() if not _is_literal_constant(field)]
    return f"Write {cls.__name__}({', '.join(f'{name}=…' for name in names)})." if names else "It has none."


class Settings(BaseModel, ABC, metaclass=FrozenModel):
    """A frozen set of settings. Unknown keys, True and False for numbers, and numbers that are infinite or NaN are refused, the
    last unless a field has ``Field(allow_inf_nan=True)``. Each field's docstring becomes its entry in the schema and the docs."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                error.add_note(
                    f"Settings never change; make others: a new {type(self).__name__}(…), or of a whole recipe "
                    'recipe.replace({"sample.temperature": 0.9}).'
                )
                raise

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, values: Any) -> Any:
        check_numbers(cls, values)
        return values

    def content(self) -> Any:
        """A digest of what the settings refer to (a file's checksum, say), as plain JSON data; part of the fingerprint.

        Returns None if the settings alone determine the result.
        """
        return None

    @final
    def identity(self) -> dict[str, Any]:
        """Everything that determines the result, as plain JSON data.

        Fields marked ``NotInFingerprint`` and fields at their default are left out, so that a new setting at its default does not
        change existing fingerprints. Parts are always included, with name and version, and their source if they were defined in
        Python and not installed.
        """
        identity: dict[str, Any] = {}
        if isinstance(self, Component):
            identity["version"] = type(self).version
            if (source := source_of(type(self))) is not None:
                identity["source"] = source
        identity |= own_settings(self)
        content = self.content()
        if content is not None:
            identity["content"] = content
        return identity


def own_settings(settings: Settings) -> dict[str, Any]:
    """The settings of an identity: without version, source and content."""
    own: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if any(isinstance(mark, NotInFingerprint) for mark in field.metadata):
            continue
        value = getattr(settings, name)
        plain = _plain(value)
        if isinstance(value, Component) or _is_literal_constant(field) or not _same(plain, _default(field)):
            own[name] = plain
    return own


def _plain(value: Any) -> Any:
    """Converts settings, dataclasses and containers of them to JSON data."""
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
    """Whether the field allows a single value, as ``name: Literal["spiral"]`` does; such a field identifies the class."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _default(field: FieldInfo) -> Any:
    return ... if field.is_required() else _plain(field.get_default(call_default_factory=True))


def _same(value: Any, default: Any) -> bool:
    # Compared as JSON: in a permutation schedule 1 is a step and 1.0 the end of training, though 1 == 1.0.
    return default is not ... and json.dumps(value, sort_keys=True) == json.dumps(default, sort_keys=True)


class Component(Settings, ABC):
    """A part that a recipe can name. Subclasses are final and set ``name: Literal["…"] = "…"``.

    The fields are the keys of the recipe table, and the docstring is the documentation. Raise ``version`` whenever the same
    settings give a different result.
    """

    kind: ClassVar[str]
    """The kind of part, which names its registry; set by the kind's base class."""
    version: ClassVar[int] = 1
    name: str = ""  # for type checkers, which would otherwise want name in a call of ``type[ScanOrder]``; each part has its own
    """The name that selects this part in a recipe."""

    def capability(self, device: str, dtype: str) -> str | None:
        """Why this part cannot run on this machine, or None if it can.

        Args:
            device: ``"cpu"``, ``"cuda"``, …
            dtype: ``"float32"``, ``"bfloat16"``, …
        """
        return None

    def rehearsed(self) -> Self:
        """The part for a rehearsal: fast and without files (random weights, few steps). By default the part itself."""
        return self

    @classmethod
    @final
    def part_name(cls) -> str:
        """The name that recipes use, without an instance."""
        return str(cls.model_fields["name"].default)
