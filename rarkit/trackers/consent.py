"""Consent to trackers that send data away: it is for whoever runs a recipe to give, and not for the recipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rarkit.registry.inputs import names as listed_names
from rarkit.trackers.base import Tracker

OPTION, VARIABLE = "--allow-tracking", "RARKIT_ALLOW_TRACKING"
_ALLOWED: ContextVar[frozenset[str]] = ContextVar("allowed trackers", default=frozenset())


@contextmanager
def allowing(names: Iterable[str]) -> Iterator[None]:
    """Inside, trackers of these names may send data away, besides those that the environment allows."""
    before = _ALLOWED.set(_ALLOWED.get() | frozenset(listed_names("allow_tracking", names)))
    try:
        yield
    finally:
        _ALLOWED.reset(before)


def refusal(tracker: Tracker) -> str | None:
    """Why a tracker may not be used, for want of consent, and how to give it; None if it may."""
    place = tracker.sends_to()
    in_environment = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    if place is None or tracker.name in {*_ALLOWED.get(), *in_environment}:
        return None
    return (
        f"it sends settings, numbers and pictures of the training to {place}, which a recipe alone may not decide. Allow it with "
        f"{OPTION} {tracker.name} (in Python allow_tracking=[{tracker.name!r}]), or for all runs with {VARIABLE}={tracker.name}; "
        "or leave it out"
    )
