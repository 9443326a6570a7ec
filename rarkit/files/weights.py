"""Files of named tensors: fetched, read and written, without ever running code that is in them.

torch is imported only to read and write tensors, so that planning can take checksums without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.implementations.local import LocalFileSystem

from rarkit.errors import RarkitWarning, WeightsError
from rarkit.files.atomic import replacing, rewriting
from rarkit.files.locations import cache_folder, filesystem_of, reaching
from rarkit.files.recognition import EMPTY, POINTERS_AND_PAGES, PYTORCH, SAFETENSORS, Content, content_of
from rarkit.files.regular import open_regular
from rarkit.files.state_dicts import Unwrapped, plain_names, unwrapped
from rarkit.files.system_errors import system_error
from rarkit.files.weight_bounds import FewInstructions, check_archive, check_safetensors, check_tensors_stored
from rarkit.files.weight_files import FORMATS, PICKLED, is_index, local_copy, shards_of

if TYPE_CHECKING:
    from torch import Tensor

PORTIONS = 8


def checksum(location: str | Path) -> str:
    """SHA-256 of the file, 64 hexadecimal digits, as ``sha256sum`` prints it. That of an index of shards covers all their bytes.

    Raises:
        WeightsError: as ``local_copy`` does, or the file only stands for the weights. Plans ask, so it is known before a run.
    """
    path = local_copy(location)
    if is_index(path):
        parts = [[name, sorted(tensors), checksum(path.parent / name)] for name, tensors in sorted(shards_of(path).items())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    content = _content(path)
    if content is not None and content in (EMPTY, *POINTERS_AND_PAGES):
        raise WeightsError(f"{path} is {content.what}. {content.cure}{_cached(path)}")
    about = path.stat()
    return _sha256(path, about.st_ino, about.st_size, about.st_mtime_ns)


# Several stages name the same file, and reading gigabytes takes seconds.
@lru_cache(maxsize=64)
def _sha256(path: Path, *version: int) -> str:
    with open_regular(path, raising=WeightsError) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _content(path: Path) -> Content | None:
    with reaching(str(path), raising=WeightsError):
        try:
            return content_of(path)
        except zipfile.BadZipFile as error:
            raise _damaged(path, "a PyTorch weight file", str(error)) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata of a safetensors file (empty for a pickled one).

    Of a training checkpoint, the state dict is read: its moving average (``ema`` and similar entries) if it has one, else
    ``model``, ``state_dict`` and similar entries. Names are those of the bare module, without ``module.`` and ``_orig_mod.``.

    The tensors are the file's own pages, mapped into memory copy-on-write: read when touched, and writing to them leaves the file
    as it is. Only files older than PyTorch 1.6, which cannot be mapped, are read into memory.

    Warns:
        RarkitWarning: the file has several state dicts; the warning says which was read.

    Raises:
        WeightsError: the file is damaged, not what its suffix says, would run code, or holds no named tensors.
    """
    state, metadata = _read(path)
    if state.others:
        others = " and ".join(map(repr, state.others))
        warnings.warn(
            f"{path} has {state.chosen!r} beside {others}: {state.chosen!r} is used. To use another, save it in a file of its own.",
            RarkitWarning,
            stacklevel=2,
        )
    return state.tensors, metadata


def _read(path: Path) -> tuple[Unwrapped, dict[str, str]]:
    with reaching(str(path), raising=WeightsError):
        return _recognised(path)


def _recognised(path: Path) -> tuple[Unwrapped, dict[str, str]]:
    if is_index(path):
        return Unwrapped(plain_names(_sharded(path))), {}
    state, metadata = _read_file(path)
    return state._replace(tensors=plain_names(state.tensors)), metadata


def _sharded(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards of an index, under the names that it gives."""
    tensors: dict[str, Tensor] = {}
    for name, expected in shards_of(path).items():
        shard = _read_file(path.parent / name)[0].tensors
        if missing := sorted(expected - shard.keys()):
            raise WeightsError(
                f"{path} expects {missing[0]} in {name}, which does not have it. They are not of one checkpoint: fetch all again."
            )
        tensors |= {tensor: shard[tensor] for tensor in shard if tensor in expected}
    return tensors


def _read_file(path: Path) -> tuple[Unwrapped, dict[str, str]]:
    """The tensors of a single file, and its metadata, under the names that the file gives."""
    content = _content(path)
    if path.suffix not in FORMATS:
        if content in (SAFETENSORS, PYTORCH):
            raise WeightsError(f"{path} is {content.what}. {content.cure}")
        named = path.suffix or "from one without suffix"
        raise WeightsError(f"{path}: weights are read from {', '.join(FORMATS)} files, not {named}")
    expected = SAFETENSORS if path.suffix == ".safetensors" else PYTORCH
    if content is not None and content != expected:
        raise WeightsError(f"{path} is {content.what}, not {expected.what}. {content.cure}{_cached(path)}")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        return Unwrapped(tensors), metadata
    return _read_pickled(path), {}


def portions(path: Path) -> Iterator[dict[str, Tensor]]:
    """The tensors of a file in about eight portions, to be copied and let go. Raises WeightsError as ``read_tensors`` does.

    Pages of a mapped file count as memory from when they are read until they are unmapped, so each portion is mapped afresh.
    """
    tensors = _read(path)[0].tensors
    if path.suffix in PICKLED and not zipfile.is_zipfile(path):
        yield tensors
        return
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    del tensors
    most, taken = sum(sizes.values()) // PORTIONS, 0
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and taken + size > most:
            groups.append([])
            taken = 0
        groups[-1].append(name)
        taken += size
    for group in groups:
        tensors = _read(path)[0].tensors
        portion = {name: tensors[name] for name in group}
        del tensors
        yield portion


def write_tensors(tensors: Mapping[str, Tensor], location: str | os.PathLike[str], metadata: Mapping[str, str]) -> None:
    """Writes a file whole or not at all, in the format that its suffix names; ``metadata`` goes into safetensors files only.

    Raises:
        WeightsError: the suffix names no format, or the place cannot be written.
    """
    location = os.fspath(location)
    suffix = os.path.splitext(location)[1]
    if suffix not in FORMATS:
        raise WeightsError(f"{location}: weights are written to {', '.join(FORMATS)} files; give the file one of these suffixes.")
    plain = {name: _compact(tensor) for name, tensor in tensors.items()}
    filesystem, path = filesystem_of(location, raising=WeightsError)
    with reaching(location, "Check that its folder or bucket exists, and that you may write there.", raising=WeightsError):
        if isinstance(filesystem, LocalFileSystem):
            _write(plain, Path(path), suffix, metadata)
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "weights"
            _write(plain, copy, suffix, metadata)
            filesystem.put_file(str(copy), path)


def _write(tensors: dict[str, Tensor], path: Path, suffix: str, metadata: Mapping[str, str]) -> None:
    import torch
    from safetensors.torch import save_file

    if suffix == ".safetensors":
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=dict(metadata))
        return
    # Given a path, torch writes the file's name into the file: the same weights would give other bytes.
    with rewriting(path) as file:
        torch.save(tensors, file)


def _compact(tensor: Tensor) -> Tensor:
    """On the CPU and alone in its storage: torch.save writes whole storages."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with open_regular(path, raising=WeightsError) as header:
            check_safetensors(header)
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        if (told := system_error(error)) is not None:
            raise told from error
        raise _damaged(path, "a safetensors file", str(error)) from error


def _read_pickled(path: Path) -> Unwrapped:
    """The state dict in a file of ``torch.save``.

    PyTorch's own messages are not passed on: they advise to switch off the protection against code in files.
    """
    import torch

    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with open_regular(path, raising=WeightsError) as file:
                check_archive(file)
        # Training scripts keep their options beside the weights; a Namespace only holds values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            if zipped:
                content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            else:
                with FewInstructions(open_regular(path, raising=WeightsError).detach()) as old:
                    content = torch.load(old, map_location="cpu", weights_only=True)
        state = unwrapped(content)
        check_tensors_stored({} if state is None else state.tensors)
    except pickle.UnpicklingError as error:
        forbidden = re.search(r"GLOBAL (\S+)", str(error))
        if forbidden is None:
            raise _damaged(path, "a PyTorch weight file", "it cannot be unpickled") from error
        raise WeightsError(
            f"{path} wants to run {forbidden[1]} when it is read, which weights never need: refused. Get the weights alone from "
            "their authors, as .safetensors if possible; if the file is your own, save the model's state dict by itself."
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        told = system_error(error)
        if isinstance(told, MemoryError):
            raise WeightsError(f"{path} claims more memory than there is here. Free some, or fetch it again.") from error
        if told is not None:
            raise told from error
        reason = "it ends too early" if not zipped else "its content is not what its table of contents says"
        if isinstance(error, RecursionError):
            reason = "its entries are nested too deep"
        elif type(error) in (ValueError, zipfile.BadZipFile):
            reason = str(error)
        raise _damaged(path, "a PyTorch weight file", reason) from error
    if state is not None:
        return state
    if content == {}:
        raise WeightsError(f"{path} holds no tensors. Save the model's state dict.")
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path} holds a {type(content).__name__}, not tensors by name (a state dict). Save the state dict alone."
        )
    name, entry = next(item for item in content.items() if not all(map(isinstance, item, (str, torch.Tensor))))
    raise WeightsError(
        f"{path} has no state dict that can be told from the rest: its entry {name!r} is a {type(entry).__name__}, not a "
        "tensor. Save the model's state dict alone."
    )


def _damaged(path: Path, expected: str, reason: str) -> WeightsError:
    return WeightsError(f"{path} is damaged or not {expected}: {reason}. Fetch it again.{_cached(path)}")


def _cached(path: Path) -> str:
    """What to do first if the file is the copy of a remote one."""
    return " Remove this copy first." if path.is_relative_to(cache_folder("weights")) else ""
