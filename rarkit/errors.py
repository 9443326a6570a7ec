"""What rarkit raises. Every message names what was found, where, and the cure.

``exit_code`` is what the command line ends with: 2 for a mistake in what was asked for, 1 for anything that went wrong on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class RarkitWarning(UserWarning):
    """Something a user ought to know, and nothing was lost by it."""


class RarkitError(Exception):
    """The root of all errors that rarkit raises on purpose."""

    exit_code: ClassVar[int] = 1


class UserError(RarkitError):
    """What was asked for cannot be done as it was asked: the asker can mend it."""

    exit_code: ClassVar[int] = 2


class RecipeError(UserError):
    """A recipe that cannot be read or does not say what a recipe must say."""


class UnknownPartError(UserError, KeyError):
    """A name that no installed part has (a KeyError too: registries are mappings)."""

    def __str__(self) -> str:
        return str(self.args[0])


class PluginError(UserError):
    """A plugin that failed to load, or two that claim one name."""


class GridError(UserError):
    """A grid or image size that the chosen part cannot serve."""


class CapabilityError(UserError):
    """A part that cannot work on this machine."""


class DatasetError(UserError):
    """Data that is missing, unreadable or not what the dataset's layout promises."""


class WeightsError(UserError):
    """A checkpoint that is missing, damaged, or does not fit the model."""


class StoreError(UserError):
    """A store that cannot be reached, read or written."""


class IncompleteError(StoreError):
    """A stage's output that is half-written or has lost chunks."""


class RankError(RarkitError):
    """Another process of the same run failed, or the run was stopped from outside."""

    def __init__(self, message: str, *, told: bool) -> None:
        """``told``: the first rank tells the user, so that this one need not."""
        super().__init__(message)
        self.told = told


class LockedError(StoreError):
    """Somebody else is writing the same stage output."""


def closest(wanted: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The known names that resemble the wanted one, the closest first; none where nothing is close."""
    from difflib import get_close_matches

    return get_close_matches(wanted, list(known), n=most)


def did_you_mean(wanted: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: ``; did you mean 'spiral'?``, or a full stop where nothing is close."""
    close = closest(wanted, known)
    return f"; did you mean {close[0]!r}?" if close else "."
