"""Where files lie: paths and fsspec URLs, and the errors of their file systems."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import fsspec
import fsspec.compression
from fsspec.config import conf
from fsspec.implementations.local import LocalFileSystem

from rarkit.errors import DatasetError, RarkitError, UserError
from rarkit.files.archives import check_archive, check_directory, check_member
from rarkit.files.atomic import rewriting
from rarkit.files.compression import expanded
from rarkit.files.protocols import check_protocols, host_of, is_allowed, is_name_of_protocol, is_remote, protocols_of
from rarkit.files.regular import check_not_special, open_on
from rarkit.files.restraint import check_answers, check_may_fetch
from rarkit.files.system_errors import cure_of
from rarkit.files.tar_members import walk

CONNECT_SECONDS, SILENT_SECONDS = 30, 60
"""How long a run waits for a connection over http, and then for each piece of an answer."""
LONGEST_REASON = 300
"""Characters of an error of a file system that are passed on: some have a page of the server in them."""
NOT_FOUND = 404
_ANSWERS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError)
_READ_WHOLE = {"tar", "simplecache"}
"""File systems that read all of a file before they give anything of it."""
_walked: list[tuple[Any, str, Any]] = []
"""The latest archives that were looked through: file system, path, and what changes when the file does."""
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure."
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "hf": "hub"}
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
        if (cause := unreachable(error)) is not None:
            raise raising(_not_reached(place, cause, cure)) from error
        raise raising(f"there is no {_missing(error, place)}. {cure}") from error
    except IsADirectoryError as error:
        raise raising(f"{place} is a folder, where a file is needed. {cure}") from error
    except NotADirectoryError as error:
        named = "is a file" if os.path.isfile(place) else "lies below a file"
        raise raising(f"{place} {named}, where a folder is needed. {cure}") from error
    except ImportError as error:
        extra = _EXTRAS.get(place.split("://")[0].rsplit("::", 1)[-1])
        install = f'pip install "rarkit[{extra}]"' if extra else str(error)
        raise raising(f"{place} needs a library that is not installed: {install}") from error
    except Exception as error:
        raise raising(_not_reached(place, error, cure)) from error


def unreachable(error: FileNotFoundError) -> BaseException | None:
    """Why a server did not say whether there is a file: over http, fsspec then says that there is none."""
    cause = error.__cause__
    is_answer = isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) == NOT_FOUND
    return None if is_answer or not (isinstance(cause, OSError) or type(cause).__module__.startswith("aiohttp")) else cause


def _not_reached(place: str, error: BaseException, cure: str) -> str:
    text = " ".join(str(error).split())[:LONGEST_REASON]
    reason = f"{type(error).__name__}: {text}" if text else type(error).__name__
    cure = _CREDENTIALS if type(error).__name__ == "NoCredentialsError" else cure_of(error, cure)
    return f"{place} cannot be reached ({reason}). {cure}"


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
    """The fsspec file system of a place, and its path there; ``options`` are fsspec's.

    While not everything may be fetched (``restraint``), the host is asked first, once, so that it cannot keep a plan waiting.

    Raises:
        NotFetchedError: the place is on another machine, and nothing may be fetched.
        UserError: ``raising``, if the place names no file system, one that is not on the list of ``protocols``, or several places.
    """
    check_protocols(place, raising)
    with reaching(place, raising=raising):
        *links, last = place.split("::")
        # By itself, a bare name such as tar is a file's.
        if (links and not last) or ((links or "://" in last) and reads_next(last)):
            raise raising(f"{place} does not say what it reads from. Add it behind '::', as in zip://photos::s3://bucket/all.zip.")
        for link in links:
            if not reads_next(link):
                # fsspec would read this link and ignore what follows.
                raise raising(
                    f"{place} is more than one place. Give one: '::' joins a file system to the one it reads from, as in "
                    "zip://photos::s3://bucket/all.zip."
                )
        if "://" not in last or last.startswith(("file://", "local://")):
            # Before fsspec opens it: of an archive, it does so at once.
            check_not_special(LocalFileSystem._strip_protocol(last), raising=raising)
        if is_remote(place):
            check_may_fetch(place, large=not _READ_WHOLE.isdisjoint(protocols_of(place)))
            _check_answers(place, raising)
        _check_archives(place, raising)
        filesystem, path = fsspec.core.url_to_fs(place, **_patience(place), **options)
        check_archive(filesystem, raising)
        check_member(filesystem, str(path), raising=raising)
        return filesystem, str(path)


@contextmanager
def opened(
    place: str, mode: str = "rb", *, compression: str | None = None, encoding: str = "utf8", raising: type[UserError] = DatasetError
) -> Iterator[Any]:
    """A file at a place, open; missing folders are made if it is written, and a local file is written whole or not at all.

    Args:
        place: a path or any fsspec URL.
        mode: as of Python's ``open``; text is in ``encoding``.
        compression: its name, ``"infer"`` by the end of the name, or None. What is read is bounded (``compression.expanded``).
        raising: the error, as of ``filesystem_of``.

    Raises:
        Exception: whatever the file system raises (``reaching``), besides the errors of ``filesystem_of``.
    """
    filesystem, path = filesystem_of(place, raising=raising)
    how = fsspec.core.get_compression(path, compression)
    if "r" not in mode and isinstance(filesystem, LocalFileSystem):
        with ExitStack() as layers:
            layer: Any = layers.enter_context(rewriting(path))
            if how is not None:
                layer = layers.enter_context(fsspec.compression.compr[how](layer, mode="w"))
            yield layers.enter_context(io.TextIOWrapper(layer, encoding=encoding)) if "t" in mode else layer
        return
    if "r" not in mode:
        with suppress(PermissionError):  # to make folders, though not to write in them
            filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    if "r" in mode and how is not None:
        with fsspec.core.OpenFile(filesystem, path, "rb") as file, expanded(file, how, place, raising) as layer:
            yield io.TextIOWrapper(layer, encoding=encoding) if "t" in mode else layer
        return
    with fsspec.core.OpenFile(filesystem, path, mode, compression=how, encoding=encoding) as file:
        yield file


def _check_archives(place: str, raising: type[UserError]) -> None:
    """Looks through the archives of a chain before fsspec does, which believes what they claim."""
    links = place.split("::")
    for number, protocol in enumerate(protocols_of(place)[:-1]):
        if protocol in ("tar", "zip"):
            filesystem, path = filesystem_of("::".join(links[number + 1 :]), raising=raising)
            if (archive := (filesystem, path, filesystem.ukey(path))) not in _walked:
                with open_on(filesystem, path, raising=raising) as stream:
                    if protocol == "tar":
                        walk(stream)
                    else:
                        check_directory(stream, path, raising)
                _walked.append(archive)
                del _walked[:-100]


def _check_answers(place: str, raising: type[UserError]) -> None:
    last = place.rsplit("::", 1)[-1]

    def ask() -> None:
        filesystem, path = fsspec.core.url_to_fs(last, **_patience(last))
        # That a file is not there, or not to be read, is an answer too: what needs it says so.
        with reaching(place, raising=raising), suppress(*_ANSWERS):
            filesystem.info(path)

    check_answers(place, host_of(place), ask, raising)


def _patience(place: str) -> dict[str, Any]:
    """Options by file system: by default, a download over http ends in an error after five minutes, however large the file is."""
    protocols = {protocol for protocol in protocols_of(place) if protocol in ("http", "https")}
    if not protocols or find_spec("aiohttp") is None:
        return {}
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
    # What the user has configured for fsspec comes first.
    return {name: {"client_kwargs": {"timeout": timeout}} for name in protocols if "client_kwargs" not in conf.get(name, {})}


def reads_next(link: str) -> bool:
    """Whether a link of a chain, such as ``zip://photos`` or ``simplecache``, reads from the link that follows it.

    A file system that is not on the list is not loaded to see; it is taken to read on, so that a refusal names the whole chain.
    """
    protocol, separator, _ = link.partition("://")
    if not separator and not is_name_of_protocol(link):
        return False
    if not is_allowed(protocol):
        return is_name_of_protocol(protocol)
    try:
        classes = fsspec.get_filesystem_class(protocol).__mro__
    except (ImportError, ValueError):  # unknown or not installed, which is reported when the link is opened
        return False
    return any(not {"fo", "fs", "target_protocol"}.isdisjoint(signature(kind.__init__).parameters) for kind in classes)


def within(place: str, folder: str) -> str:
    """The place of a folder in another: ``zip://photos::s3://bucket/all.zip`` goes on in its first link."""
    head, link, tail = place.partition("::")
    if "://" not in head:
        return f"{place.rstrip('/')}/{folder}"
    return f"{head}{'' if head.endswith('/') else '/'}{folder}{link}{tail}"


def folder_of(place: str) -> str:
    """The folder in which a file is, of which ``within`` makes the file's place again; ``.`` for a bare name."""
    head, link, tail = place.partition("::")
    if not link or "://" not in head:
        return place.rsplit("/", 1)[0] if "/" in place else "."
    protocol, _, path = head.partition("://")
    return f"{protocol}://{path.rpartition('/')[0]}{link}{tail}"


def in_this_process_alone(place: str) -> bool:
    """Whether other processes of this machine find something else there."""
    return "memory://" in place


def cache_folder(of: str) -> Path:
    """The user's folder for what rarkit fetched or built, and can fetch or build again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rarkit" / of
