"""The errors that rarkit raises. Every message says what was found, where, and the cure.

Each argument is a line of the message. What would end a line or steer a terminal within one was in somebody's name or file, and
is shown as an escape.

``exit_code`` is the exit code of the command line: 2 for a mistake in the request, 1 for anything that failed along the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rarkit.printable import printable

LONGEST, ENDING = 4000, 500
"""Characters of a line of a message, and of its end, where the cure stands: what it quotes may be of any length."""


class RarkitWarning(UserWarning):
    """Something that a user should know but that did no harm. Each argument is a line."""

    def __str__(self) -> str:
        return _lines(self.args)


class RarkitError(Exception):
    """The base class of every error that rarkit raises on purpose. Each argument is a line."""

    exit_code: ClassVar[int] = 1

    def __str__(self) -> str:
        return _lines(self.args)


def _lines(arguments: Iterable[object]) -> str:
    return "\n".join(_shortened(printable(str(line))) for line in arguments)


def _shortened(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[: LONGEST - ENDING - 3]} … {line[-ENDING:]}"


class UserError(RarkitError):
    """The request cannot be carried out as given; the user can fix it."""

    exit_code: ClassVar[int] = 2


class RecipeError(UserError):
    """A recipe that cannot be read, lacks a required setting or has an invalid one."""


class UnknownPartError(UserError, KeyError):
    """No installed part has this name. Also a KeyError, since registries are mappings."""


class PluginError(UserError):
    """A plugin that failed to load, two plugins with a part of the same name, or a part that breaks the contract of its kind."""


class GridError(UserError):
    """A grid, or a size, channels or classes of images, that the chosen part does not support."""


class CapabilityError(UserError):
    """A part that cannot work on this machine."""


class DatasetError(UserError):
    """Data that is missing, unreadable or not laid out as the dataset requires."""


class FewImagesError(UserError):
    """Too few images, or too much alike, for a number."""


class ImageError(DatasetError):
    """An image that cannot be decoded, or must not be: ``on_bad_image = "skip"`` passes it over."""


class WeightsError(UserError):
    """A checkpoint that is missing, damaged, or does not fit the model."""


class NotFetchedError(UserError):
    """Something on another machine that a command which fetches nothing, or nothing large, left there."""

    def __init__(self, place: str) -> None:
        """``place``: its address."""
        super().__init__(f"{place} is on another machine and was not fetched. rarkit run fetches it.")
        self.place = place


class StoreError(UserError):
    """A store that cannot be reached, read or written."""


class WriteError(StoreError):
    """A store, or scratch folder, that could no longer be written: a full disk, for instance. The same command goes on."""

    exit_code: ClassVar[int] = 1


class IncompleteError(StoreError):
    """A stage output that is half-written or has lost chunks."""


class NotFiniteError(RarkitError):
    """A loss, or a gradient's norm, that is not finite: the training has diverged."""


class RankError(RarkitError):
    """Another process of the same run failed, or the run was stopped from outside."""

    def __init__(self, message: str, *, told: bool) -> None:
        """``message``: text of an error, whose lines are our own; ``told``: the first rank reports it, so this one stays silent."""
        super().__init__(*message.split("\n"))
        self.told = told


class LockedError(StoreError):
    """Another process is writing the same stage output."""


class LockLostError(WriteError):
    """This process may no longer write a stage output: it could not renew its lock, or another process has taken over."""


def sentences(*texts: object) -> str:
    """The texts one after another, each with a full stop if nothing ends it yet."""
    return " ".join(text if text.endswith((".", "?", "!", ":", "…")) else f"{text}." for text in map(str, texts))


def closest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Up to ``most`` known names that resemble ``name``, closest first; empty if none is close."""
    from difflib import get_close_matches

    return get_close_matches(name, list(known), n=most)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: ``; did you mean 'spiral'?``, or a full stop if no name is close."""
    close = closest(name, known)
    return f"; did you mean {close[0]!r}?" if close else "."
