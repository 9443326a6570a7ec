"""Files that expand, claim or never end."""

from __future__ import annotations

import gzip
import lzma
import os
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

from tests.hostile.entry import Entry, Place, hostile

ENTRIES: list[Entry] = []


IMPORT = "--grid 2x3 --codebook-size 16 --classes 10"


def _gzipped(piece: bytes, count: int) -> bytes:
    """What expands to many times a piece."""
    return gzip.compress(piece) * count


@hostile(ENTRIES, f"tokens import tokens.jsonl.gz store {IMPORT}", code=2, words=("tokens.jsonl.gz:1", "there is no record within"))
def one_line_of_four_gigabytes(place: Place) -> None:
    place.write("tokens.jsonl.gz", gzip.compress(b'{"class_id": 1, "tokens": [') + _gzipped(b"1," * 2**23, 256))


@hostile(ENTRIES, f"tokens import tokens.json.gz store {IMPORT}", code=2, words=("tokens.json.gz", "of white space"))
def an_array_of_nothing_but_white_space(place: Place) -> None:
    place.write("tokens.json.gz", gzip.compress(b"[") + _gzipped(b" " * 2**24, 256))


@hostile(ENTRIES, f"tokens import tokens.jsonl.gz store {IMPORT}", code=2, words=("tokens.jsonl.gz expands from", "Decompress it"))
def a_billion_records_that_are_the_same(place: Place) -> None:
    place.write("tokens.jsonl.gz", _gzipped(b'{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 6]}\n' * 2**18, 4096))


@hostile(ENTRIES, f"tokens import tokens.json store {IMPORT}", code=2, words=("record 1 of its JSON array is nested too deep",))
def an_array_nested_without_an_end(place: Place) -> None:
    place.write("tokens.json", "[" * 2**22)


def _png(width: int, height: int, chunks: bytes = b"") -> bytes:
    """The beginning of a picture of this size, whose rows are noise as far as they are there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)

    noise = random.Random(width).randbytes(1 << 12)
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x00\x00\x00\x00"
    rows = zlib.compress(b"".join(b"\0" + noise[row * width :][:width] for row in range(min(height, 1 << 12))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _pictures(place: Place, more: str = "") -> Path:
    """A recipe that reads the folder ``pictures``, of two classes with two small pictures each: the first class's folder."""
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        place.write(f"pictures/{name}.png", _png(4, 4))
    dataset = f'name = "image_folder"\npath = "pictures"\nsize = 4\nworkers = 0\n{more}'
    place.recipe(f'unset = ["dataset"]\n[dataset]\n{dataset}[tokenizer]\ncodes = 2\n')
    return place.work / "pictures/cat"


RUN = "run recipe.toml --store store --device cpu --until tokenize"


@hostile(ENTRIES, RUN, code=0, words=("1 of 3 images are skipped",))
def a_picture_of_two_billion_pixels_to_skip(place: Place) -> None:
    (_pictures(place, 'on_bad_image = "skip"\n') / "hostile.png").write_bytes(_png(50_000, 50_000))


@hostile(ENTRIES, RUN, code=2, words=("hostile.png",))
def a_picture_with_text_that_expands(place: Place) -> None:
    text = b"note\x00\x00" + zlib.compress(bytes(1 << 28), 9)
    chunk = len(text).to_bytes(4) + b"zTXt" + text + zlib.crc32(b"zTXt" + text).to_bytes(4)
    (_pictures(place) / "hostile.png").write_bytes(_png(4, 4, chunk))


def _shards(place: Place) -> Path:
    place.recipe(
        'unset = ["dataset"]\n[dataset]\nname = "webdataset"\nurls = "a.tar"\nclass_names = ["a", "b"]\nsize = 4\nworkers = 0\n'
    )
    return place.work / "a.tar"


@hostile(ENTRIES, RUN, code=2, words=("a.tar",))
def a_tar_of_ten_kilobytes_that_claims_thirty_gigabytes(place: Place) -> None:
    member = tarfile.TarInfo("0.png")
    member.size = 30 << 30
    place.write("a.tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240 - 512))
    _shards(place)


def _arrays(place: Place, **arrays: bytes) -> None:
    with zipfile.ZipFile(place.work / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    place.recipe('unset = ["dataset"]\n[dataset]\nname = "npz"\npath = "a.npz"\n')


def _npy(dtype: str, shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


LABELS = _npy("'<i8'", "(2,)", (0).to_bytes(8, "little") + (1).to_bytes(8, "little"))
IMAGES = _npy("'|u1'", "(2, 4, 4, 1)", bytes(32))


class _Runs:
    """Pickled, it runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


@hostile(ENTRIES, "sample weights.bin --preset rar_b --device cpu", code=2, words=("weights.bin",))
def weights_that_run_a_command(place: Place) -> None:
    place.write("weights.bin", pickle.dumps(_Runs(f": > {place.outside}/made")))


@hostile(ENTRIES, "sample weights.safetensors --preset rar_b --device cpu", code=2, words=("weights.safetensors",))
def weights_with_a_header_of_exabytes(place: Place) -> None:
    place.write("weights.safetensors", (2**60).to_bytes(8, "little") + b"{}")


@hostile(ENTRIES, f"tokens import tokens.jsonl.xz store {IMPORT}", code=1, words=("there is not enough memory here",))
def a_dictionary_of_four_gigabytes(place: Place) -> None:
    whole = bytearray(lzma.compress(b"{}\n"))
    # In the header of the block: the size of the dictionary, and the checksum.
    end = 12 + 4 * (whole[12] + 1)
    whole[16] = 40
    whole[end - 4 : end] = zlib.crc32(whole[12 : end - 4]).to_bytes(4, "little")
    place.write("tokens.jsonl.xz", bytes(whole))


@hostile(ENTRIES, f"tokens import tokens.jsonl.gz store {IMPORT}", code=2, words=("tokens.jsonl.gz",))
def a_gzip_that_is_cut_off(place: Place) -> None:
    place.write("tokens.jsonl.gz", gzip.compress(b'{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 6]}\n' * 1000)[:-20])


@hostile(ENTRIES, "validate recipe.toml", code=2, words=("a.toml expands from",))
def a_recipe_that_expands(place: Place) -> None:
    with zipfile.ZipFile(place.write("all.zip", b""), "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.toml", "w") as file:
        for _ in range(100):
            file.write(bytes(2**20))
    place.write("recipe.toml", 'extends = "zip://a.toml::all.zip"')


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("all.zip has more than 262,144 files", "Unpack it"))
def a_zip_archive_of_300_000_files(place: Place) -> None:
    with zipfile.ZipFile(place.write("all.zip", b""), "w") as archive:
        archive.writestr("cat/000000.png", _png(4, 4))
    archive_1 = (place.work / "all.zip").read_bytes()
    start, end = archive_1.index(b"PK\1\2"), archive_1.index(b"PK\5\6")
    files = b"".join(archive_1[start:end].replace(b"000000", b"%06d" % number) for number in range(300_000))
    # An end claims how many there are in 16 bits: none, here.
    place.write("all.zip", archive_1[:start] + files + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(files), start, 0))
    place.recipe('unset = ["dataset"]\n[dataset]\nname = "image_folder"\npath = "zip://::all.zip"\nsize = 4\n')


@hostile(ENTRIES, "plan recipe.toml", code=2, words=("recipe.toml is a named pipe",))
def a_pipe_as_a_recipe(place: Place) -> None:
    os.mkfifo(place.work / "recipe.toml")


@hostile(ENTRIES, RUN, code=2, words=("hostile.png is a named pipe",))
def a_pipe_among_pictures(place: Place) -> None:
    os.mkfifo(_pictures(place) / "hostile.png")


@hostile(ENTRIES, RUN, code=0, words=("hostile.png is a device", "1 of 3 images are skipped"))
def an_endless_picture_to_skip(place: Place) -> None:
    (_pictures(place, 'on_bad_image = "skip"\n') / "hostile.png").symlink_to("/dev/zero")


@hostile(ENTRIES, f"{RUN} --set dataset.size=256", code=2, words=("hostile.png", "1 × 60,000 pixels"))
def a_picture_of_one_line(place: Place) -> None:
    (_pictures(place) / "hostile.png").write_bytes(_png(1, 60_000))


@hostile(ENTRIES, RUN, code=2, words=("hostile.png", "it is none of PNG, JPEG"))
def a_program_as_a_picture(place: Place) -> None:
    program = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(outside) run\nshowpage\n"
    (_pictures(place) / "hostile.png").write_text(program)


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("a.npz", "by its header"))
def an_array_of_terabytes(place: Place) -> None:
    _arrays(place, images=_npy("'|u1'", "(1000000, 1000, 1000, 3)"), labels=LABELS)


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("a.npz", "which takes 335,544,320 bytes of memory; labels may take"))
def labels_that_expand_as_text(place: Place) -> None:
    place.recipe('unset = ["dataset"]\n[dataset]\nname = "npz"\npath = "a.npz"\n')
    count = 2**22
    with zipfile.ZipFile(place.work / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("images.npy", _npy("'|u1'", f"({count}, 1, 1)", bytes(count)))
        archive.writestr("labels.npy", _npy("'|S20'", f"({count},)", bytes(20 * count)))


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("a.npz", "its arrays are: 0, 1, 2"))
def arrays_without_an_end(place: Place) -> None:
    _arrays(place, **{str(number): b"" for number in range(3000)})


@hostile(ENTRIES, "plan recipe.toml", code=0, words=("a.npz", "from 0 to 4611686018427387904", "less than 1,048,576"))
def labels_of_any_number(place: Place) -> None:
    _arrays(place, images=IMAGES, labels=_npy("'<i8'", "(2,)", bytes(8) + (2**62).to_bytes(8, "little")))


@hostile(
    ENTRIES, "sample model.pt --preset rar_b --tokenizer model.pt --device cpu", code=2, words=("expands to 3,221,225,472 bytes",)
)
def weights_that_expand(place: Place) -> None:
    with zipfile.ZipFile(place.write("model.pt", b""), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
        archive.writestr("archive/version", b"3\n")
        archive.getinfo("archive/data.pkl").file_size = 3 << 30
