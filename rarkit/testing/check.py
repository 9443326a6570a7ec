"""``check``: all checks of a part's kind, in one call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import pytest
from pydantic import ValidationError

from rarkit.errors import RarkitWarning, did_you_mean
from rarkit.registry.component import Component
from rarkit.testing.attention_backend_suite import AttentionBackendSuite
from rarkit.testing.dataset_suite import DatasetSuite
from rarkit.testing.failure import CheckError, trying
from rarkit.testing.feature_extractor_suite import FeatureExtractorSuite
from rarkit.testing.model_family_suite import ModelFamilySuite
from rarkit.testing.part_suite import PartSuite
from rarkit.testing.permutation_schedule_suite import PermutationScheduleSuite
from rarkit.testing.scan_order_suite import ScanOrderSuite
from rarkit.testing.tokenizer_suite import TokenizerSuite
from rarkit.testing.tracker_suite import TrackerSuite

SUITES: dict[str, type[PartSuite]] = {
    "datasets": DatasetSuite,
    "tokenizers": TokenizerSuite,
    "scan_orders": ScanOrderSuite,
    "permutation_schedules": PermutationScheduleSuite,
    "attention_backends": AttentionBackendSuite,
    "models": ModelFamilySuite,
    "feature_extractors": FeatureExtractorSuite,
    "trackers": TrackerSuite,
}
"""The suite of each kind."""


def check(part: Component | type[Component], *, every: bool = False, **settings: Any) -> None:
    """Checks a part of any kind: everything that the suite of its kind checks, without pytest's command line.

    Args:
        part: an instance, or a class, which is then made with its default settings.
        every: go on after a failure, and tell all of them.
        settings: attributes of the suite, as a subclass would set them: ``falls=True`` for a schedule that never rises,
            ``grids=[(4, 4)]`` for a scan order, ``device="cuda"``, ``info=ImageInfo(…)`` for tokenizers and feature extractors.

    Raises:
        AssertionError: a check failed. The message names the part, the input, what is wrong and what to do.
        TypeError: ``part`` is no part, cannot be made without settings, or the suite has no such attribute.
    """
    __tracebackhide__ = True
    made = made_of(part)
    suite = suite_of(made, settings)
    failures: list[str] = []
    for outcome in outcomes(suite, made):
        if outcome.failure is not None:
            if not every:
                raise outcome.failure
            failures.append(str(outcome.failure))
        elif outcome.skipped:
            warnings.warn(f"not checked: {outcome.check}. {outcome.skipped}", RarkitWarning, stacklevel=2)
    told = "\n\n".join(dict.fromkeys(failures))
    if told:
        raise AssertionError(told)


@final
@dataclass(frozen=True)
class Outcome:
    """What one check of a suite said of a part."""

    check: str
    """Its name, without ``test_``."""
    failure: CheckError | None = None
    skipped: str = ""
    """Why it was left out; "" if it was not."""


def outcomes(suite: PartSuite, part: Component) -> Iterator[Outcome]:
    """Runs the checks of a suite, one after another."""
    for name in check_names(type(suite)):
        check = name.removeprefix("test_")
        try:
            with trying(part, f"checked for {check}"):
                getattr(suite, name)(part)
        except CheckError as failure:
            yield Outcome(check, failure)
        except pytest.skip.Exception as skipped:
            yield Outcome(check, skipped=str(skipped))
        else:
            yield Outcome(check)


def check_names(suite: type[PartSuite]) -> list[str]:
    """The names of a suite's tests."""
    return [name for name in dir(suite) if name.startswith("test_")]


def made_of(part: Any) -> Component:
    if isinstance(part, Component):
        return part
    if not (isinstance(part, type) and issubclass(part, Component)):
        raise TypeError(f"check takes a part (an instance or a class of rarkit.ScanOrder, …), not {part!r}")
    cls: type[Any] = part
    try:
        return cls()  # type: ignore[no-any-return]
    except ValidationError as error:
        missing = ", ".join(".".join(map(str, detail["loc"])) or detail["msg"] for detail in error.errors())
        raise TypeError(f"{part.__name__} cannot be made without settings ({missing}): pass an instance to check") from error


def suite_of(part: Component, settings: dict[str, Any]) -> PartSuite:
    base = SUITES[part.kind]
    known = {name for cls in base.__mro__ for name in getattr(cls, "__annotations__", {})} - {"parts"}
    for name in settings:
        if name not in known:
            raise TypeError(
                f"{base.__name__} has no attribute {name!r}{did_you_mean(name, known)} It has: {', '.join(sorted(known))}"
            )
    suite: PartSuite = type("Checked", (base,), {"parts": (part,), **settings})()
    return suite
