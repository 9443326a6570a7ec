"""How a check fails: it names the part, the input, the fault and the cure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from rarkit.registry.component import Component

T = TypeVar("T")


class CheckError(AssertionError):
    """A part breaks a promise of its kind."""

    def __init__(self, part: Component, given: str, fault: str, cure: str) -> None:
        self.part, self.given, self.fault, self.cure = part, given, fault, cure
        super().__init__(f"{part!r}, {given}: {fault}.\n{cure}.")


def require(holds: object, part: Component, given: str, fault: str, cure: str) -> None:
    """Fails unless something holds.

    Args:
        holds: what must be true.
        part: the part that is checked.
        given: the input, as in ``"on a grid of 1×5"``.
        fault: what the part does with it, without a full stop.
        cure: what its author can do, a sentence without a full stop.

    Raises:
        CheckError: it does not hold.
    """
    __tracebackhide__ = True
    if not holds:
        raise CheckError(part, given, fault, cure)


@contextmanager
def trying(part: Component, given: str, cure: str = "The base class of its kind says what it must do") -> Iterator[None]:
    """Calls of a part: whatever they raise becomes a ``CheckError`` that names part and input."""
    try:
        yield
    except CheckError:
        raise
    except Exception as error:
        message = str(error).rstrip(".") or "without a message"
        raise CheckError(part, given, f"raises {type(error).__name__}: {message}", cure) from error


def for_all(drawn: st.SearchStrategy[T], holds: Callable[[T], None], most: int) -> None:
    """Calls ``holds`` with up to ``most`` drawn values, the same ones each time; of those that fail, the simplest is told.

    Raises:
        CheckError: what ``holds`` raised.
    """
    failures: list[CheckError] = []

    def holds_or_is_kept(value: T) -> None:
        try:
            holds(value)
        except CheckError as failure:
            failures.append(failure)
            raise

    unchecked = list(HealthCheck)
    chosen = settings(
        max_examples=most,
        deadline=None,
        database=None,
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=unchecked,
    )
    try:
        chosen(given(drawn)(holds_or_is_kept))()
    except Flaky:
        # It failed once and then passed: hypothesis would tell of itself instead of the part.
        raise failures[0] from None
