"""Reaching the places where data lies: paths and fsspec URLs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from rarkit.errors import DatasetError

_EXTRAS = {"s3": "s3", "s3a": "s3", "hf": "hub"}


@contextmanager
def reaching(place: str, cure: str = "Check the place, and that you may read it.") -> Iterator[None]:
    """Turns whatever a file system raises into a DatasetError that names the place; each has errors of its own."""
    try:
        yield
    except (DatasetError, MemoryError):
        raise
    except FileNotFoundError as error:
        named = error.filename
        missing = place if named in (None, place, os.path.abspath(place)) else f"{named}, of {place}"
        raise DatasetError(f"there is no {missing}. {cure}") from error
    except ImportError as error:
        extra = _EXTRAS.get(place.split("://")[0].rsplit("::", 1)[-1])
        install = f'pip install "rarkit[{extra}]"' if extra else str(error)
        raise DatasetError(f"{place} needs a library that is not installed: {install}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DatasetError(f"{place} cannot be reached ({reason}). {cure}") from error


def filesystem_of(place: str) -> tuple[Any, str]:
    """The fsspec file system that a place is on, and its path there. Raises DatasetError if there is no way to it."""
    with reaching(place):
        filesystem, path = fsspec.core.url_to_fs(place)
        return filesystem, str(path)


def within(place: str, folder: str) -> str:
    """The place of a folder in another: in ``zip://photos::s3://bucket/all.zip`` it is the first link that goes on."""
    head, link, tail = place.partition("::")
    if "://" not in head:
        return f"{place.rstrip('/')}/{folder}"
    return f"{head}{'' if head.endswith('/') else '/'}{folder}{link}{tail}"


def in_this_process_alone(place: str) -> bool:
    """Whether other processes of this machine see something else there."""
    return "memory://" in place


def cache_folder(of: str) -> Path:
    """The user's folder for what rarkit fetched or built and can fetch or build again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rarkit" / of


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A file beside ``target``, for the caller to create, that takes its place if all goes well, and is gone if not."""
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        partial = Path(folder) / target.name
        yield partial
        partial.replace(target)
