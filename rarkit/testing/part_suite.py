"""The conformance suite of all parts."""

from __future__ import annotations

import json
import math
import random
import sys
from abc import ABC
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from rarkit.registry.component import Component
from rarkit.testing.digests import digests
from rarkit.testing.failure import require, trying
from rarkit.testing.second_process import digests_elsewhere, heavy_imports


class PartSuite(ABC):  # noqa: B024 (what a suite must define differs from kind to kind)
    """Base of the suites. Subclass the suite of a kind, set ``parts``, and let pytest collect the class.

    Each test is run once for each part, with the part in its name. Where parts need a fixture, leave ``parts`` empty and define a
    fixture ``part``.
    """

    parts: ClassVar[Sequence[Any]] = ()
    """Instances to test: one with default settings, and one for each setting that changes its behaviour."""

    @classmethod
    def pytest_generate_tests(cls, metafunc: Any) -> None:
        """Called by pytest: gives each test the parts, by their settings."""
        if cls.parts and "part" in metafunc.fixturenames:
            metafunc.parametrize("part", cls.parts, ids=_id)

    @pytest.fixture
    def part(self) -> Component:
        """The part of a test, unless ``parts`` gives it."""
        raise AssertionError(f"{type(self).__name__} has nothing to test: set parts to a sequence of instances")

    def test_it_can_be_named_in_a_recipe(self, part: Component) -> None:
        cure = 'Write name: Literal["…"] = "…" in the class'
        require(
            type(part).part_name() == part.name, part, "named in a recipe", f"its class is called {type(part).part_name()!r}", cure
        )
        for copy in (type(part).model_validate(part.model_dump()), type(part).model_validate_json(part.model_dump_json())):
            # Compared as JSON, because for == the step 1 and the fraction 1.0 are equal.
            same = _identity(part) == _identity(copy)
            require(same, part, "written to a recipe and read", f"it becomes {copy!r}", "Settings must be read as they are written")

    def test_settings_are_frozen_and_unknown_ones_refused(self, part: Component) -> None:
        for given, change in (
            ("whose name is set", lambda: setattr(part, "name", "another")),
            ("with the setting no_such_setting", lambda: type(part).model_validate({**part.model_dump(), "no_such_setting": 1})),
        ):
            cure = "Leave frozen and extra in model_config as they are in the base class"
            require(_refused(change), part, given, "accepts it, where it must raise ValidationError", cure)

    def test_it_is_documented(self, part: Component) -> None:
        cls = type(part)
        require((cls.__doc__ or "").strip(), part, "its documentation", "is missing", "Write a docstring for the class")
        bare = [name for name, field in cls.model_fields.items() if name != "name" and not field.description]
        require(not bare, part, "the documentation of its settings", f"lacks {bare}", "Write a docstring under each field")

    def test_its_identity_is_json_and_stable(self, part: Component) -> None:
        copy = type(part).model_validate(part.model_dump())
        same = _identity(part) == _identity(part) == _identity(copy)
        require(same, part, "asked for its identity twice", "gives two", "content() must depend on settings and files alone")
        version = type(part).version
        require(part.identity()["version"] == version >= 1, part, "its version", f"is {version!r}", "Set version to 1 or more")

    def test_it_says_where_it_cannot_work(self, part: Component) -> None:
        for device, dtype in (("cpu", "float32"), ("cpu", "bfloat16"), ("cuda", "float32"), ("cuda", "bfloat16")):
            given = f"on {device} in {dtype}"
            with trying(part, given):
                reason = part.capability(device, dtype)
            well = reason is None or (isinstance(reason, str) and bool(reason.strip()))
            require(well, part, given, f"capability returns {reason!r}", "Return None, or a reason in words")

    def test_it_is_light_to_import(self, part: Component) -> None:
        heavy = heavy_imports(part)
        given = f"whose module {type(part).__module__} is imported"
        require(not heavy, part, given, f"imports {', '.join(heavy)}", "Import them in build() or in a method")

    def _is_the_same_elsewhere(self, part: Component, here: dict[str, Any] | None = None, **options: Any) -> None:
        """Compares ``digests`` with those of another process."""
        if here is None:
            with trying(part, "in this process"):
                here = digests(part, **options)
        for given, there in digests_elsewhere(part, options).items():
            cure = "It may depend on settings, arguments and files alone: not on hash(), sets, the clock or an unseeded generator"
            require(_same(here[given], there), part, given, "differs in another process", cure)


@contextmanager
def untouched_randomness(part: Component, given: str) -> Iterator[None]:
    """Fails if what runs in it draws from a global generator or seeds it: of Python, NumPy and, if it is imported, torch."""
    # Who seeds it the same way twice leaves it as it was, unless something was drawn between.
    random.random(), np.random.random()
    if "torch" in sys.modules:
        sys.modules["torch"].rand(1)
    before, imported = _states(), len(sys.modules)
    yield
    if len(sys.modules) > imported:
        # Libraries draw names of temporary files while they are imported, as scikit-learn does.
        before.pop("random")
    touched = [name for name, state in _states().items() if name in before and state != before[name]]
    fault = f"draws from the global generator of {' and '.join(touched)}, or seeds it"
    require(not touched, part, given, fault, "Create a generator of its own, from a seed")


def _states() -> dict[str, Any]:
    states: dict[str, Any] = {"random": random.getstate()}
    name, key, *rest = np.random.get_state(legacy=True)
    states["numpy"] = (name, np.asarray(key).tobytes(), *rest)
    if "torch" in sys.modules:
        import torch

        states["torch"] = torch.random.get_rng_state().numpy().tobytes()
    return states


def fresh(part: Any) -> Any:
    """Another instance with the same settings."""
    return type(part).model_validate(part.model_dump())


def _id(part: Component) -> str:
    """A name for test reports: the part's, with its settings that are not at their default."""
    changed = part.model_dump(exclude_defaults=True, exclude={"name"})
    return f"{part.name}({', '.join(f'{name}={value!r}' for name, value in changed.items())})" if changed else part.name


def _identity(part: Component) -> str:
    return json.dumps(part.identity(), sort_keys=True, allow_nan=False)


def _refused(change: Callable[[], object]) -> bool:
    try:
        change()
    except ValidationError:
        return True
    return False


def _same(here: Any, there: Any) -> bool:
    """Whether values are equal; numbers may differ by rounding."""
    if isinstance(here, list):
        return len(here) == len(there) and all(
            math.isclose(*pair, rel_tol=1e-3, abs_tol=1e-3) for pair in zip(here, there, strict=True)
        )
    return bool(here == there)
