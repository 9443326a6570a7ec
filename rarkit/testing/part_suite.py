"""What every part promises, of whatever kind."""

from __future__ import annotations

import json
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from rarkit.registry.component import Component


class PartSuite(ABC):
    """Subclass one of the suites of a kind, set ``parts``, and let pytest collect the class."""

    parts: ClassVar[Sequence[Any]]
    """Instances to test: one with default settings at least, and one for every setting that changes what it does."""

    def test_it_can_be_named_in_a_recipe(self) -> None:
        for part in self._parts():
            assert part.name == type(part).part_name(), 'write name: Literal["…"] = "…" in the class'
            assert type(part).model_validate(part.model_dump()) == part, "settings must survive being written and read"

    def test_settings_are_frozen_and_unknown_ones_refused(self) -> None:
        for part in self._parts():
            with pytest.raises(ValidationError):
                part.name = "another"
            with pytest.raises(ValidationError):
                type(part).model_validate({**part.model_dump(), "no_such_setting": 1})

    def test_it_is_documented(self) -> None:
        for part in self._parts():
            assert type(part).__doc__, "the class's docstring is the part's documentation"
            fields = type(part).model_fields.items()
            bare = [name for name, field in fields if name != "name" and not field.description]
            assert not bare, f"write a docstring under each of these fields: {bare}"

    def test_its_identity_is_json_and_stable(self) -> None:
        for part in self._parts():
            said = json.dumps(part.identity(), sort_keys=True)
            assert said == json.dumps(part.model_copy().identity(), sort_keys=True)
            assert part.identity()["version"] == type(part).version >= 1

    def _parts(self) -> Sequence[Component]:
        assert self.parts, "set parts to a sequence of instances"
        return self.parts
