"""The conformance suite of all parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from rarkit.registry.component import Component

HEAVY = ("torch", "zarr", "sklearn", "scipy", "PIL")


class PartSuite(ABC):
    """Base of the suites. Subclass the suite of a kind, set ``parts``, and let pytest collect the class."""

    parts: ClassVar[Sequence[Any]]
    """Instances to test: one with default settings, and one for each setting that changes its behaviour."""

    def test_it_can_be_named_in_a_recipe(self) -> None:
        for part in self._parts():
            assert type(part).part_name() == part.name, 'write name: Literal["…"] = "…" in the class'
            read = [type(part).model_validate(part.model_dump()), type(part).model_validate_json(part.model_dump_json())]
            # Compared as JSON, because for == the step 1 and the fraction 1.0 are equal.
            assert [_identity(part)] * 2 == [_identity(copy) for copy in read], "settings must not change when written and read"

    def test_settings_are_frozen_and_unknown_ones_refused(self) -> None:
        for part in self._parts():
            with pytest.raises(ValidationError):
                part.name = "another"
            with pytest.raises(ValidationError):
                type(part).model_validate({**part.model_dump(), "no_such_setting": 1})

    def test_it_is_documented(self) -> None:
        for part in self._parts():
            assert (type(part).__doc__ or "").strip(), "write a docstring for the class: it is the part's documentation"
            fields = type(part).model_fields.items()
            bare = [name for name, field in fields if name != "name" and not field.description]
            assert not bare, f"write a docstring under each of these fields: {bare}"

    def test_its_identity_is_json_and_stable(self) -> None:
        for part in self._parts():
            copy = type(part).model_validate(part.model_dump())
            assert _identity(part) == _identity(part) == _identity(copy), f"{part!r} has two identities"
            assert part.identity()["version"] == type(part).version >= 1

    def test_it_says_where_it_cannot_work(self) -> None:
        for part in self._parts():
            for device, dtype in [("cpu", "float32"), ("cpu", "bfloat16"), ("cuda", "float32"), ("cuda", "bfloat16")]:
                reason = part.capability(device, dtype)
                assert reason is None or reason.strip(), f"{part!r} on {device} in {dtype}: return None or a reason, not {reason!r}"

    def test_it_is_light_to_import(self) -> None:
        modules = sorted({type(part).__module__ for part in self._parts()})
        code = f"import sys, {', '.join(modules)}; print(*sorted(sys.modules.keys() & set({HEAVY})))"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        fresh = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert fresh.returncode == 0, f"a fresh Python cannot import {modules}:\n{fresh.stderr}"
        heavy = fresh.stdout.split()
        assert not heavy, f"importing {modules} imports {heavy}: import them in build() or in a method"

    def _parts(self) -> Sequence[Component]:
        assert self.parts, "set parts to a sequence of instances"
        return self.parts


def _identity(part: Component) -> str:
    return json.dumps(part.identity(), sort_keys=True, allow_nan=False)
