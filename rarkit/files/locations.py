"""Where files lie: paths and fsspec URLs, and the errors of their file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from rarkit.errors import DatasetError, RarkitError, UserError
from rarkit.files.regular import check_not_special
from rarkit.files.system_errors import cure_of

_EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "hub"}
"""By protocol, the extra of rarkit that installs its file system."""


@contextmanager
def reaching(
    place: str, cure: str = "Check the place, and that you may read it.", *, raising: type[UserError] = DatasetError
) -> Iterator[None]:
    """Turns whatever a file system raises into one error of ours that names the place: each has exceptions of its own.

    Args:
        place: a path or any fsspec URL.
        cure: the last sentence of the message, unless the operating system's error has a cure of its own.
        raising: the error. Errors of ours pass through as they are.
    """
    try:
        yield
    except (RarkitError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise raising(f"there is no {_missing(error, place)}. {cure}") from error
    except IsADirectoryError as error:
        raise raising(f"{place} is a folder, where a file is needed. {cure}") from error
    except ImportError as error:
        extra = _EXTRAS.get(place.split("://")[0].rsplit("::", 1)[-1])
        install = f'pip install "rarkit[{extra}]"' if extra else str(error)
        raise raising(f"{place} needs a library that is not installed: {install}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise raising(f"{place} cannot be reached ({reason}). {cure_of(error, cure)}") from error


def _missing(error: FileNotFoundError, place: str) -> str:
    """What is missing: the place, something in it, or something it is made of, such as the archive of ``zip://a::b.zip``."""
    if not isinstance(error.filename, str):
        return place
    named, whole = (os.path.realpath(path) for path in (error.filename, place))
    if named == whole or error.filename == place:
        return place
    if named.startswith(f"{whole}{os.sep}"):
        return f"{os.path.relpath(named, whole)} in {place}"
    return f"{error.filename}, which {place} needs"


def filesystem_of(place: str, *, raising: type[UserError] = DatasetError, **options: Any) -> tuple[Any, str]:
    """The fsspec file system of a place, and its path there. Raises ``raising`` if there is none; ``options`` are fsspec's."""
    with reaching(place, raising=raising):
        for link in place.split("::")[:-1]:
            if not reads_next(link):
                # fsspec would read this link and ignore what follows.
                raise raising(
                    f"{place} is more than one place. Give one: '::' joins a file system to the one it reads from, as in "
                    "zip://photos::s3://bucket/all.zip."
                )
        last = place.rsplit("::", 1)[-1]
        if "://" not in last or last.startswith(("file://", "local://")):
            # Before fsspec opens it: of an archive, it does so at once.
            check_not_special(LocalFileSystem._strip_protocol(last), raising=raising)
        filesystem, path = fsspec.core.url_to_fs(place, **options)
        return filesystem, str(path)


def reads_next(link: str) -> bool:
    """Whether a link of a chain, such as ``zip://photos`` or ``simplecache``, reads from the link that follows it."""
    protocol, separator, _ = link.partition("://")
    if not separator and link not in fsspec.available_protocols():
        return False
    try:
        classes = fsspec.get_filesystem_class(protocol).__mro__
    except (ImportError, ValueError):  # unknown or not installed, which is reported when the link is opened
        return False
    return any(not {"fo", "fs", "target_protocol"}.isdisjoint(signature(kind.__init__).parameters) for kind in classes)


def compression_of(place: str) -> str | None:
    """How a file is compressed, by the end of its name: ``"gzip"`` for ``.gz``, and so on."""
    compression: str | None = fsspec.utils.infer_compression(place)
    return compression


def within(place: str, folder: str) -> str:
    """The place of a folder in another: ``zip://photos::s3://bucket/all.zip`` goes on in its first link."""
    head, link, tail = place.partition("::")
    if "://" not in head:
        return f"{place.rstrip('/')}/{folder}"
    return f"{head}{'' if head.endswith('/') else '/'}{folder}{link}{tail}"


def in_this_process_alone(place: str) -> bool:
    """Whether other processes of this machine find something else there."""
    return "memory://" in place


def cache_folder(of: str) -> Path:
    """The user's folder for what rarkit fetched or built, and can fetch or build again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rarkit" / of
