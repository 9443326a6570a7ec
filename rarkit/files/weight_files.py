"""Files of weights: found, and fetched if they are remote.

Large checkpoints are sharded, as the libraries of Hugging Face write them: an index in JSON, ``*.index.json``, says in which of
several files beside it each tensor is.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path, PurePath
from typing import Annotated, Any, final

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field

from rarkit.errors import WeightsError
from rarkit.files.atomic import replacing, write_bytes
from rarkit.files.locations import cache_folder, filesystem_of, folder_of, reaching, within
from rarkit.files.protocols import is_remote
from rarkit.files.regular import check_regular, open_regular
from rarkit.files.restraint import check_may_fetch
from rarkit.files.stored_json import parsed

PICKLED = (".bin", ".pt", ".pth", ".ckpt")
FORMATS = (*PICKLED, ".safetensors")
INDEX = ".index.json"
IN_FOLDERS = tuple(
    f"{name}{end}"
    for name in ("model.safetensors", "pytorch_model.bin", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
    for end in ("", INDEX)
)
"""The files of weights that a folder may stand for, the first that there is."""
OF_RUN = "receipt.json"
"""The file that the folder of a run has; its model is in the store."""
BUNDLE, IN_BUNDLE = "bundle", "model."
"""The entry in the metadata of a bundle, and how the names of its model's tensors begin."""
LARGEST = 2**26
"""Bytes of an index. A thousand layers have less than one hundredth of them."""
_SHARD = re.compile(r"[^/\\:\x00-\x1f]+\.(safetensors|bin|pt|pth)")


@final
class _Index(BaseModel):
    """In which file each tensor is."""

    model_config = ConfigDict(strict=True)

    weight_map: Annotated[dict[str, str], Field(min_length=1)]


def is_index(path: str | PurePath) -> bool:
    """Whether a file is an index, by its name."""
    return str(path).endswith(INDEX)


def shards(contents: bytes, place: str) -> dict[str, set[str]]:
    """The names of the tensors of each shard, by the name of its file, which is beside the index.

    Args:
        contents: of the index.
        place: the index, for messages.

    Raises:
        WeightsError: it is not an index, or names files elsewhere.
    """
    try:
        files = parsed(_Index, contents, LARGEST).weight_map
    except ValueError as error:
        raise WeightsError(f"{place} is not an index of shards with a weight_map ({error}). Fetch it again.") from error
    named: dict[str, set[str]] = {}
    for tensor, file in files.items():
        if not _SHARD.fullmatch(file):
            raise WeightsError(
                f"{place} names {file!r} for tensor {tensor!r}: shards are .safetensors or PyTorch files beside their index. "
                "Fetch it again."
            )
        named.setdefault(file, set()).add(tensor)
    return named


def shards_of(index: Path) -> dict[str, set[str]]:
    """``shards`` of a local index. Raises WeightsError, also if it is far too large, and OSError if it cannot be read."""
    with open_regular(index, LARGEST, raising=WeightsError) as file:
        return shards(file.read(), str(index))


def local_copy(location: str | Path) -> Path:
    """The file itself if it is local; else a copy in the cache folder, fetched once for each version of the remote file.

    Args:
        location: a path or any fsspec URL. A folder stands for the ``model.safetensors`` in it, or another of ``IN_FOLDERS``, but
            that of a run, whose model is in its store. An index stands for its shards, which are beside the file that is returned.

    Raises:
        WeightsError: there is no such file, or no way to it.
        NotFetchedError: it is remote and not in the cache folder, and nothing large may be fetched.
    """
    filesystem, path = filesystem_of(str(location), raising=WeightsError)
    with reaching(str(location), raising=WeightsError):
        # Over http, asking whether a file is a folder begins to download it.
        if os.path.splitext(path)[1] not in FORMATS and not is_index(path) and filesystem.isdir(path):
            if filesystem.exists(f"{path.rstrip('/')}/{OF_RUN}"):
                raise WeightsError(
                    f"{location} is the folder of a run, and a file of weights in it may be of an earlier training. Write one with "
                    "rarkit export, and name that file."
                )
            inside = [f"{path.rstrip('/')}/{name}" for name in IN_FOLDERS]
            path = next((file for file in inside if filesystem.exists(file)), inside[0])
        if isinstance(filesystem, LocalFileSystem):
            _check_file(Path(path), f"there is no file {location}")
            for name in shards_of(Path(path)) if is_index(path) else ():
                _check_file(Path(path).with_name(name), f"there is no file {name}, which {location} names")
            return Path(path)
        return _fetched(filesystem, path, str(location))


def companion(location: str, name: str, most: int) -> bytes | None:
    """The contents of a small file that lies with weights, such as a ``config.json``; None if there is none.

    Args:
        location: a path or any fsspec URL, of the weights or of the folder that they are in.
        name: the file's.
        most: how many bytes it may have.

    Raises:
        WeightsError: it has more bytes, or there is no way to it.
        NotFetchedError: it is remote, and nothing may be fetched now.
    """
    folder = folder_of(location) if location.endswith((*FORMATS, INDEX)) else location
    place = within(folder, name)
    filesystem, path = filesystem_of(place, raising=WeightsError)
    with reaching(place, raising=WeightsError):
        if not filesystem.isfile(path):
            return None
        if isinstance(filesystem, LocalFileSystem):
            check_regular(path, raising=WeightsError)
        with filesystem.open(path, "rb") as file:
            contents: bytes = file.read(most + 1)
    if len(contents) > most:
        raise WeightsError(f"{place} has more than {most:,} bytes. Fetch it again.")
    return contents


def _check_file(path: Path, missing: str) -> None:
    if not os.path.exists(path) or os.path.isdir(path):
        raise WeightsError(f"{missing}. Check the place, or fetch the weights there.")
    check_regular(path, raising=WeightsError)


def _fetched(filesystem: Any, path: str, location: str) -> Path:
    folder, _, name = path.rpartition("/")
    contents = filesystem.cat_file(path, end=LARGEST) if is_index(path) else None
    members = [path] if contents is None else [f"{folder}/{shard}" for shard in shards(contents, location)]
    # The key covers what the file system says of the files (size, time, tag): a file that changes is fetched again.
    versions = [filesystem.ukey(member) for member in dict.fromkeys([path, *members])]
    key = hashlib.sha256(" ".join([location, *versions]).encode()).hexdigest()[:20]
    target: Path = cache_folder("weights") / key / name
    if target.exists():
        return target
    if is_remote(location):
        check_may_fetch(location, large=True)
    for member in members:
        copy = target.with_name(member.rpartition("/")[2])
        if copy.exists():
            continue
        with replacing(copy) as temporary:
            filesystem.get_file(member, str(temporary))
            size = filesystem.size(member)
            if size is not None and temporary.stat().st_size != size:
                raise OSError(f"only {temporary.stat().st_size:,} of {size:,} bytes arrived")
    if contents is not None:
        # Last: where it is, its shards are.
        write_bytes(target, contents)
    return target
