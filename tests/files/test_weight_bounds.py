"""Weights that expand or claim what is not there: one message, in little memory; what torch and safetensors write is read."""

from __future__ import annotations

import collections
import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rarkit.files.weight_bounds import check_archive
from rarkit.files.weights import checksum, read_tensors
from tests.limits import refusal


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape, start: int, end: int, dtype: str = "F32") -> dict:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def rewritten(claimed: int | None = None, kind: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch.save, written again with its parts compressed or their sizes claimed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"a": torch.zeros(3)}))) as old, zipfile.ZipFile(file, "w", kind) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
            if claimed is not None:
                new.getinfo(member.filename).file_size = claimed
    return file.getvalue()


def in_itself() -> bytes:
    content: dict = {"b": 1}
    content["model"] = content
    return saved(content)


def pickled(instructions: bytes, *, old: bool = False) -> bytes:
    """A file of torch.save, new or old, with other instructions in it."""
    if old:
        whole, start = io.BytesIO(), io.BytesIO()
        torch.save({}, whole, _use_new_zipfile_serialization=False)
        whole.seek(0)
        for _ in range(3):  # a number, the version, the machine
            pickle.load(whole)
        start.write(whole.getvalue()[: whole.tell()] + instructions)
        return start.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({}))) as empty, zipfile.ZipFile(file, "w") as new:
        for member in empty.infolist():
            new.writestr(member.filename, instructions if member.filename.endswith(".pkl") else empty.read(member))
    return file.getvalue()


def of_itself_twice() -> bytes:
    content: dict = {}
    for _ in range(60):
        content = {"a": content, "b": content}
    return saved(content)


LISTS = b"\x80\x02(" + b"]" * (2**21 + 1) + b"l."
BYTES = b"\x80\x02c__builtin__\nbytearray\nJ" + struct.pack("<i", 2**30) + b"\x85R."
NESTED = torch.nested.as_nested_tensor([torch.zeros(2), torch.zeros(3)])

HOSTILE = {
    "header.safetensors": (lambda: safetensors({}, length=2**62), "its header claims 4,611,686,018,427,387,904 bytes"),
    "long.safetensors": (lambda: safetensors(b"{" + b" " * 2**25 + b"}"), "its header claims 33,554,434 bytes"),
    "offsets.safetensors": (lambda: safetensors(tensor([2**40], 0, 2**42)), "is damaged or not a safetensors file"),
    "shape.safetensors": (lambda: safetensors(tensor([2**62, 2**62], 0, 4), bytes(4)), "is damaged or not a safetensors file"),
    "compressed.pt": (lambda: rewritten(kind=zipfile.ZIP_DEFLATED), "in it is compressed, and expands to"),
    "bomb.pt": (lambda: rewritten(3 << 30, zipfile.ZIP_DEFLATED), "is compressed, and expands to 3,221,225,472 bytes"),
    "claim.pt": (lambda: rewritten(3 << 30), "its parts claim more bytes than it has"),
    "repeated.pt": (
        lambda: saved({"a": torch.zeros(1).expand(2**20, 2**20)}),
        "tensor 'a' claims 4,398,046,511,104 bytes and has 4",
    ),
    "sparse.pt": (lambda: saved({"a": torch.zeros(3, 3).to_sparse()}), "tensor 'a' is not stored as an array"),
    "meta.pt": (lambda: saved({"a": torch.zeros(3, device="meta")}), "tensor 'a' is not stored as an array"),
    "nested.pt": (lambda: saved({"a": NESTED}), "tensor 'a' is not stored as an array"),
    "lists.pt": (lambda: pickled(LISTS), r"it holds 2,097,\d+ bytes besides tensors"),
    "old_lists.pt": (lambda: pickled(LISTS, old=True), "more than 1,048,576 instructions"),
    "bytes.pt": (lambda: pickled(BYTES), "it makes arrays of bytes"),
    "old_bytes.pt": (lambda: pickled(BYTES, old=True), "it makes arrays of bytes"),
    "twice.pt": (of_itself_twice, "holds no tensors|no state dict"),
    "itself.pt": (in_itself, "nested too deep"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_weights_that_expand_are_refused(tmp_path, name):
    make, message = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(make())
    told = refusal(lambda: read_tensors(path))
    assert re.match(rf"{re.escape(str(path))} .*({message})", told), told
    assert checksum(path)


def test_what_the_libraries_write_is_read(tmp_path):
    many = {f"layer.{number}.weight": torch.full((2, 3), float(number)) for number in range(300)}
    tied = many["layer.0.weight"]
    contents = {
        "plain": many,
        "tied": {"a": tied, "b": tied},
        "view": {"a": tied.expand(4, 2, 3)},
        "ordered": collections.OrderedDict(many),
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pt")
        check_archive(io.BytesIO((tmp_path / f"{name}.pt").read_bytes()))
        torch.testing.assert_close(read_tensors(tmp_path / f"{name}.pt")[0], dict(content))
    save_file(many, tmp_path / "a.safetensors")
    torch.testing.assert_close(read_tensors(Path(tmp_path / "a.safetensors"))[0], many)
