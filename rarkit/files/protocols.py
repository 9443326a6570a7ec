"""Which file systems an address may name. Recipes and receipts come from strangers, and some file systems run what they read."""

from __future__ import annotations

import os

import fsspec

from rarkit.errors import UserError, closest

PLACES = ("file", "local", "memory", "http", "https", "s3", "s3a", "gs", "gcs", "hf")
"""File systems that hold files."""
READERS = ("zip", "tar", "simplecache")
"""File systems that read from the one that follows them in a chain."""
ALLOW = "RARKIT_PROTOCOLS"
"""The variable with which whoever runs rarkit adds to the list: names with commas between."""
_ON_THIS_MACHINE = {"file", "local", "memory", *READERS}


def protocols_of(place: str) -> list[str]:
    """The file systems of a path or URL as fsspec would choose them, from the first link to the last; a path's is ``file``."""
    links = place.split("::")
    if len(links) > 1:
        # Within a chain, the bare name of a file system is one.
        links = [f"{link}://" if link in _known() else link for link in links]
    return [fsspec.core.split_protocol(link)[0] or "file" for link in links]


def check_protocols(place: str, raising: type[UserError]) -> None:
    """Raises ``raising`` if an address names a file system that is not on the list. Loads nothing."""
    allowed = _allowed()
    for protocol in protocols_of(place):
        if protocol in allowed:
            continue
        if protocol not in _known():
            near = closest(protocol, allowed)
            hint = f"Did you mean {near[0]}://?" if near else f"Use one of: {', '.join(allowed)}."
            raise raising(f"{place} names a file system that nothing here knows, {protocol!r}. {hint}")
        raise raising(
            f"{place} is refused: addresses in recipes may name {', '.join(allowed)}, but not {protocol!r}. "
            f"If you trust this one, allow it: {ALLOW}={protocol}."
        )


def is_allowed(protocol: str) -> bool:
    """Whether a file system is on the list."""
    return protocol in _allowed()


def is_name_of_protocol(link: str) -> bool:
    """Whether a link of a chain is the bare name of a file system, as in ``simplecache::s3://…``."""
    return link in _known()


def is_remote(place: str) -> bool:
    """Whether reading a path or URL asks another machine."""
    return not _ON_THIS_MACHINE.issuperset(protocols_of(place))


def host_of(place: str) -> tuple[str, str]:
    """The last file system of an address, and the host or bucket there."""
    last = place.rsplit("::", 1)[-1]
    return protocols_of(place)[-1], last.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _allowed() -> tuple[str, ...]:
    added = [name.strip() for name in os.environ.get(ALLOW, "").split(",") if name.strip()]
    return (*PLACES, *READERS, *added)


def _known() -> set[str]:
    return set(fsspec.available_protocols())
