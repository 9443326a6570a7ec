"""What may be fetched from other machines: everything, little, or nothing; and how long their answer is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, final

from rarkit.errors import NotFetchedError, UserError

Fetching = Literal["all", "little", "nothing"]
"""``"little"``: headers, listings and labels, as planning needs; no weights."""
ANSWER = 8.0
"""Seconds that the first answer of another machine may take. With the start of Python, a command ends within ten."""
FURTHER = 1.0
"""Seconds for the others, once one did not answer."""
_Answer = TypeVar("_Answer")
Host = tuple[str, str]
"""A file system, and the host or bucket there."""


@final
@dataclass(frozen=True)
class _Restraint:
    most: Fetching = "all"
    answers: dict[Host, UserError | None] = field(default_factory=dict)
    """The hosts that were asked, and what is wrong with them."""


_restraint: ContextVar[_Restraint | None] = ContextVar("_restraint", default=None)
_STRICTER: tuple[Fetching, ...] = ("all", "little", "nothing")


def _now() -> _Restraint:
    return _restraint.get() or _Restraint()


@contextmanager
def fetching(most: Fetching) -> Iterator[None]:
    """Within it, this thread fetches no more than this from other machines; inside another, the stricter one holds."""
    outer = _now()
    answers = outer.answers if outer.most != "all" else {}
    token = _restraint.set(_Restraint(max(most, outer.most, key=_STRICTER.index), answers))
    try:
        yield
    finally:
        _restraint.reset(token)


def check_may_fetch(place: str, *, large: bool) -> None:
    """Raises NotFetchedError if something remote may not be fetched now; ``large``: a file of unbounded size."""
    most = _now().most
    if most == "nothing" or (most == "little" and large):
        raise NotFetchedError(place)


def check_answers(place: str, host: Host, ask: Callable[[], object], raising: type[UserError]) -> None:
    """Where not everything may be fetched: asks a host, once, so that it cannot keep a plan waiting.

    Raises:
        UserError: ``raising``, or what else ``ask`` raises; the host does not answer.
    """
    restraint = _now()
    if restraint.most == "all":
        return
    if host not in restraint.answers:
        try:
            # Once one is silent, no long wait for each of the others.
            answer_of(place, ask, raising, FURTHER if any(restraint.answers.values()) else ANSWER)
            restraint.answers[host] = None
        except UserError as error:
            restraint.answers[host] = error
    if (wrong := restraint.answers[host]) is not None:
        raise raising(str(wrong)) from wrong


def answer_of(place: str, ask: Callable[[], _Answer], raising: type[UserError], seconds: float | None = None) -> _Answer:
    """What ``ask`` returns or raises; raises ``raising`` if that takes longer than ``seconds`` (``ANSWER``).

    File systems have timeouts of their own, of minutes with their retries.
    """
    answers: list[_Answer] = []
    errors: list[BaseException] = []

    def asking() -> None:
        try:
            answers.append(ask())
        except BaseException as error:  # raised again below, in the thread that asked
            errors.append(error)

    # A daemon, which does not keep the process from ending while it waits on.
    thread: Any = threading.Thread(target=asking, name=f"asking {place}", daemon=True)
    thread.start()
    seconds = ANSWER if seconds is None else seconds
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        raise raising(
            f"{place} did not answer within {seconds:.0f} seconds. Check the address and the network, or try again later."
        )
    return answers[0]
