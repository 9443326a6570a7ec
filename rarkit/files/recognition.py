"""What a file is, by its first bytes: for messages about files that are not what their names say."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import IO, NamedTuple, final

from rarkit.errors import WeightsError
from rarkit.files.regular import open_regular

HEAD = 512
"""Bytes that tell."""


@final
class Content(NamedTuple):
    """What a file is, as a noun with its article, and how to get the file that was meant (a sentence or two)."""

    what: str
    cure: str


_AGAIN = "Fetch it again, from the address of the file itself."
EMPTY = Content("an empty file", "Its download or copy failed, or the disk was full: fetch it again.")
LFS_POINTER = Content(
    "a Git LFS pointer, which only stands for the file",
    "Get the file with git lfs pull where the repository was cloned, or download it by itself.",
)
ANNEX_POINTER = Content("a git-annex pointer, which only stands for the file", "Get the file with git annex get.")
WEB_PAGE = Content(
    "a web page (HTML), as servers send for errors and log-ins",
    f"{_AGAIN} On the Hugging Face hub, that has /resolve/ in it, not /blob/.",
)
XML = Content("XML text, as servers send for errors", _AGAIN)
POINTERS_AND_PAGES = (LFS_POINTER, ANNEX_POINTER, WEB_PAGE, XML)
"""Text that nobody meant to get."""
SAFETENSORS = Content("a safetensors file", "Rename it to end in .safetensors.")
PYTORCH = Content("a PyTorch file", "Rename it to end in .pt.")
TORCHSCRIPT = Content("a TorchScript program", "Save the state dict of its module: torch.save(torch.jit.load(…).state_dict(), …).")
PICKLE = Content("a Python pickle that torch.save did not write", "Save the model's state dict with torch.save.")
NPZ = Content("a NumPy .npz file", "Rename it to end in .npz.")
NPY = Content("a single NumPy array (.npy)", "Write an .npz file with numpy.savez.")
ZIP = Content("a zip archive", "Unpack it, and name the file in it.")
TAR = Content("a tar archive", "Unpack it, and name the file in it.")
COMPRESSED = tuple(
    Content(f"compressed with {program}", "Decompress it, and name the file in it.") for program in ("gzip", "bzip2", "xz", "zstd")
)
IMAGES = tuple(Content(f"a {kind} image", _AGAIN) for kind in ("PNG", "JPEG", "GIF"))

_BEGINNINGS: tuple[tuple[bytes, Content], ...] = (
    (b"version https://git-lfs.github.com/", LFS_POINTER),
    (b"/annex/objects/", ANNEX_POINTER),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", PYTORCH),  # torch.save before PyTorch 1.6
    (b"\x93NUMPY", NPY),
    *zip((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"), COMPRESSED, strict=True),
    (b"7z\xbc\xaf\x27\x1c", Content("a 7z archive", "Unpack it, and name the file in it.")),
    (b"Rar!\x1a\x07", Content("a RAR archive of WinRAR", "Unpack it, and name the file in it.")),
    (b"GGUF", Content("a GGUF file of llama.cpp", "Get the weights as .safetensors or as a PyTorch file.")),
    (b"\x89HDF\r\n\x1a\n", Content("an HDF5 file", "Convert it: rarkit does not read HDF5.")),
    (b"PAR1", Content("a Parquet table", "Images in it are read by the dataset huggingface of the plugin rarkit-hf.")),
    (b"%PDF-", Content("a PDF document", _AGAIN)),
    *zip((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"), IMAGES, strict=True),
)


def recognised(head: bytes) -> Content | None:
    """What a file with these first bytes (``HEAD`` of them, or all) is; None if they do not tell."""
    if not head:
        return EMPTY
    # The size of the header, then the header, which is JSON. First, because the size may look like the beginning of anything.
    if head[4:9] == b"\0\0\0\0{":
        return SAFETENSORS
    for beginning, content in _BEGINNINGS:
        if head.startswith(beginning):
            return content
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip(head)
    if head[257:262] == b"ustar":
        return TAR
    if re.match(rb"\x80[\x02-\x05]", head):
        return PICKLE
    return _text(head)


def content_of(path: Path) -> Content | None:
    """What a local file is; None if its first bytes do not tell.

    Raises:
        WeightsError: it is no regular file.
        zipfile.BadZipFile: it is a zip archive, and damaged.
        OSError: it cannot be read.
    """
    with open_regular(path, raising=WeightsError) as file:
        content = recognised(file.read(HEAD))
        if content not in (ZIP, PYTORCH) or not zipfile.is_zipfile(file):
            return content
        with zipfile.ZipFile(file) as archive:
            members = {name.rpartition("/")[2] for name in archive.namelist()}
    if "constants.pkl" in members:
        return TORCHSCRIPT
    return PYTORCH if "data.pkl" in members else content


def peeked(file: IO[bytes]) -> Content | None:
    """What an open, seekable file is; its position is at the start afterwards."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    return recognised(head)


def instead(content: Content | None, *expected: Content) -> str:
    """The end of a message about a file that cannot be read: what it is if that is not ``expected``, and the cure."""
    return "Fetch it again." if content is None or content in expected else f"It is {content.what}. {content.cure}"


def _zip(head: bytes) -> Content:
    """A zip archive, which PyTorch and NumPy use too, by the name of its first member."""
    length = int.from_bytes(head[26:28], "little")
    first = head[30 : 30 + length]
    if first.endswith(b"/data.pkl"):
        return PYTORCH
    return NPZ if first.endswith(b".npy") else ZIP


def _text(head: bytes) -> Content | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut.
        if error.start < len(head) - 3 or len(head) < HEAD:
            return None
        text = head[: error.start].decode()
    begin = text.lstrip("\ufeff \t\r\n")
    if re.match(r"<!doctype html|<html|<head|<body", begin, re.IGNORECASE):
        return WEB_PAGE
    if begin.startswith("<?xml") or re.match(r"<error>", begin, re.IGNORECASE):
        return XML
    if any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return None
    line = begin.splitlines()[0] if begin else ""
    return Content(f"text that begins with {line[:60]!r}", _AGAIN)
