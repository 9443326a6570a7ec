"""What the checks of a kind say of an installed part, for ``rarkit plugins check``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from rarkit.registry.component import Component
from rarkit.scan_orders.base import ScanOrder
from rarkit.testing.check import Outcome, made_of, outcomes, suite_of
from rarkit.testing.scan_order_suite import ScanOrderSuite


@final
@dataclass(frozen=True)
class PartReport:
    """The outcome of the checks of one part."""

    kind: str
    name: str
    outcomes: tuple[Outcome, ...] = ()
    skipped: str = ""
    """Why the part was not checked at all; "" if it was."""

    @property
    def passed(self) -> list[str]:
        return [outcome.check for outcome in self.outcomes if outcome.failure is None and not outcome.skipped]

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure is not None]

    def lines(self) -> list[str]:
        """For people: a line, and what failed below it."""
        label = f"{self.kind} {self.name}"
        if self.skipped:
            return [f"? {label}: not checked: {self.skipped}"]
        if not self.failures:
            return [f"✓ {label}: {len(self.passed)} checks passed", *self._left_out()]
        told = dict.fromkeys(str(outcome.failure) for outcome in self.failures)
        failed = [f"  {line}" for message in told for line in message.splitlines()]
        return [f"✗ {label}: {len(self.failures)} of {len(self.outcomes)} checks failed", *failed, *self._left_out()]

    def as_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {
            "kind": self.kind,
            "name": self.name,
            "not_checked": self.skipped,
            "passed": self.passed,
            "left_out": {outcome.check: outcome.skipped for outcome in self.outcomes if outcome.skipped},
            "failures": [
                {"check": outcome.check} | {key: getattr(outcome.failure, key) for key in ("given", "fault", "cure")}
                for outcome in self.failures
            ],
        }

    def _left_out(self) -> list[str]:
        return [f"  left out: {outcome.check} ({outcome.skipped})" for outcome in self.outcomes if outcome.skipped]


def checked(part: type[Component]) -> PartReport:
    """Makes a part with its default settings and checks it, on a GPU if it works only there."""
    kind = part.kind
    try:
        made = made_of(part)
    except TypeError as error:
        return PartReport(kind, part.part_name(), skipped=str(error))
    device, lacking = _device(made)
    if lacking:
        return PartReport(kind, part.part_name(), skipped=lacking)
    chosen = {**device, **_grids(made)}
    return PartReport(kind, part.part_name(), tuple(outcomes(suite_of(made, chosen), made)))


def _grids(part: Component) -> dict[str, Any]:
    """The suite's grids of a scan order: those that it says it supports. Which it must, its own tests say."""
    if not isinstance(part, ScanOrder):
        return {}
    return {"grids": [grid for grid in ScanOrderSuite.grids if part.requirement(*grid) is None]}


def _device(part: Component) -> tuple[dict[str, Any], str]:
    """The suite's setting of the device, and why there is none that will do."""
    lacking = part.capability("cpu", "float32")
    if lacking is None:
        return {}, ""
    import torch

    if torch.cuda.is_available() and part.capability("cuda", "float32") is None:
        return {"device": "cuda"}, ""
    return {}, lacking
