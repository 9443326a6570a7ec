"""Which Parquet files a path, URL or name of the hub stands for, by split."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, final

from pydantic import TypeAdapter

from rarkit import Location
from rarkit.datasets import filesystem_of, reaching, some_of
from rarkit.errors import DatasetError

HUB = "hf://datasets/"
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_LOCATION: TypeAdapter[str] = TypeAdapter(Location)
PARQUET = ".parquet"
CONVERTED = "refs/convert/parquet"
"""The branch of data sets on the hub in which it keeps them as Parquet, whatever they were uploaded as."""
OTHERWISE = (
    f'Only Parquet is read. Of most data sets on the hub, revision = "{CONVERTED}" has it; those of the datasets library write '
    "it with to_parquet; folders of images are read by image_folder."
)


def hub_or_place(value: Any) -> Any:
    """``owner/name`` as the address on the hub, unless there is such a file or folder here; all else as it is."""
    if isinstance(value, str) and _NAME.fullmatch(value) and not value.endswith(PARQUET):
        # A relative path in a recipe starts at the recipe's folder.
        return value if os.path.exists(_LOCATION.validate_python(value)) else f"{HUB}{value}"
    return value


@final
@dataclass(frozen=True)
class Found:
    """The files of each split, in order; where the data set says so, also the number of images."""

    files: dict[str, list[str]]
    counts: dict[str, int]


def found(place: str, config: str | None, revision: str | None) -> Found:
    """Looks for the files of a data set; of one on the hub, it reads listings and descriptions alone.

    Args:
        place: a file or folder, as path or fsspec URL; files, as a pattern; or ``hf://datasets/owner/name``.
        config: the name of one of several data sets that lie together; None for the only one, or the default.
        revision: commit, tag or branch of the hub.

    Raises:
        DatasetError: there is no such data set, or it is no Parquet.
        NotFetchedError: it is elsewhere, and nothing may be fetched.
    """
    on_hub = place.startswith(HUB)
    filesystem, path = filesystem_of(place)
    if revision and not on_hub:
        raise DatasetError(f"{place} is not on the hub, which alone has revisions. Leave revision out.")
    if (config or revision) and ("*" in path or path.endswith(PARQUET)):
        raise DatasetError(f"{place} names its files, among which config and revision choose nothing. Leave them out.")
    if "*" in path:
        with reaching(place):
            files = sorted(filesystem.glob(path))
        if not files:
            raise DatasetError(f"there is no file {place}. Check the pattern, and that you may read the folder.")
        return Found({"train": [_address(place, file) for file in files]}, {})
    if path.endswith(PARQUET):
        return Found({"train": [place]}, {})
    if not on_hub and "://" in place:
        raise DatasetError(f"{place} is elsewhere, where folders are not looked through. Name its files, as in {place}/*{PARQUET}.")
    if not on_hub and not os.path.isdir(path):
        here = "is no Parquet file" if os.path.exists(path) else "does not exist"
        raise DatasetError(f"{place} {here}. {OTHERWISE if os.path.exists(path) else 'Check the path.'}")
    return _described(place.removeprefix(HUB) if on_hub else path, place, config, revision)


def _described(name: str, place: str, config: str | None, revision: str | None) -> Found:
    """The files of a folder or of a data set on the hub, sorted into splits by the datasets library."""
    from datasets import load_dataset_builder
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError

    cure = "Check its files."
    if place.startswith(HUB):
        cure = "Check name and revision; data sets that ask for it need a login (hf auth login)."
    with reaching(place, cure):
        try:
            builder = load_dataset_builder(name, config, revision=revision)
        except ValueError as error:
            raise DatasetError(f"{place}: {error} Set config to one of them.") from error
        except (EmptyDatasetError, DataFilesNotFoundError) as error:
            raise DatasetError(f"{place} has no files of data. {OTHERWISE}") from error
    files = {str(split): [str(file) for file in files] for split, files in (builder.config.data_files or {}).items()}
    others = [file for several in files.values() for file in several if not file.endswith(PARQUET)]
    if others or not files:
        what = f"has files that are no Parquet ({some_of(others)})" if others else "has no files of data"
        raise DatasetError(f"{place} {what}. {OTHERWISE}")
    splits = builder.info.splits or {}
    return Found(files, {str(name): about.num_examples for name, about in splits.items() if about.num_examples})


def _address(pattern: str, file: str) -> str:
    protocol, separator, _ = pattern.partition("://")
    return f"{protocol}{separator}{file}" if separator else file


def downloaded(places: list[str]) -> list[str]:
    """The files on this machine: those of the hub are fetched once, into the library's cache."""
    if not places[0].startswith("hf://"):
        return places
    from datasets import DownloadManager

    with reaching(places[0], "Check the network and the free disk space; what was fetched is kept."):
        local: list[str] = DownloadManager().download(places)
    return local
