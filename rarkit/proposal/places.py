"""How somebody's images lie: what kind of file or folder a place is, and which dataset part reads it."""

from __future__ import annotations

import os
import re
from typing import Any

from rarkit.datasets.image_folder import LIKE_SPLITS, ONLY_CLASS, TEST, TRAIN
from rarkit.datasets.image_listing import SUFFIXES, Listing, listed
from rarkit.datasets.links import folded
from rarkit.datasets.links import sentence as links_sentence
from rarkit.datasets.notices import some_of
from rarkit.errors import DatasetError
from rarkit.files.locations import filesystem_of, reaching, within
from rarkit.files.protocols import is_remote
from rarkit.files.recognition import HEAD, recognised
from rarkit.files.regular import open_on
from rarkit.files.restraint import fetching
from rarkit.proposal.choice import Choice
from rarkit.proposal.found_lists import LISTS, found_lists, list_layout
from rarkit.proposal.found_shards import SHARDS, found_shards, shard_layout
from rarkit.proposal.layout import Layout
from rarkit.registry.loader import parts
from rarkit.registry.registry import install

FORMS = (
    "a folder of images, with or without a folder for each class, or a .zip of one; a list of them (.csv, .jsonl); tar shards; a "
    ".npz file of arrays; with rarkit-hf, a .parquet file, or owner/name on the Hugging Face hub"
)
"""What can be named."""
TABLES, ARROW = (".parquet",), ".arrow"
FILES = (*LISTS, *SHARDS, *TABLES, ARROW, *SUFFIXES, ".npz", ".zip", ".toml")
HUB, HUB_NAME = "hf://datasets/", re.compile(r"\w[\w.-]*/\w[\w.-]*")
HELD_OUT = 0.2
"""Share of each class that datasets hold out where nothing is named for tests."""
AS_PARQUET = "Write it as Parquet, which rarkit-hf reads: datasets.load_from_disk(…).to_parquet(…), or Dataset.from_file(…)."
INSTALL_HUGGINGFACE = f"data sets of the Hugging Face hub, and .parquet files, need the plugin rarkit-hf ({install('rarkit-hf')})"


def is_on_hub(place: str) -> bool:
    """Whether a place is a name on the Hugging Face hub, ``owner/name``, which no local path is."""
    name = place.removeprefix(HUB)
    return HUB_NAME.fullmatch(name) is not None and not name.lower().endswith(FILES) and not os.path.exists(place)


def layout_of(place: str) -> Layout:
    """How the images at a place lie.

    Args:
        place: a path or any fsspec URL; a name on the Hugging Face hub.

    Raises:
        DatasetError: nothing is there, it cannot be read, or it is no form of images that is known.
    """
    if "{" in place and not os.path.exists(place):
        return shard_layout(place)
    if is_on_hub(place):
        if "huggingface" not in parts().datasets:
            raise DatasetError(INSTALL_HUGGINGFACE)
        return _huggingface(place.removeprefix(HUB), "a data set of the Hugging Face hub")
    # A machine that does not answer is given up after a few seconds.
    with fetching("little"):
        filesystem, path = filesystem_of(place)
    with reaching(place, "Check the address and your network." if is_remote(place) else f"Name {FORMS}."):
        is_folder = filesystem.isdir(path) or path in ("", "/")
        if not is_folder:
            filesystem.info(path)  # raises if there is nothing
    return _folder(place, filesystem, path) if is_folder else _file(place, filesystem, path)


def _file(place: str, filesystem: Any, path: str) -> Layout:
    name = path.lower()
    if name.endswith(LISTS):
        return list_layout(place)
    if name.endswith(SHARDS):
        return shard_layout(place)
    if name.endswith(TABLES):
        held_out = Choice("test_fraction", HELD_OUT, "of each class, held out for tests")
        return _huggingface(place, "a table").with_choices(held_out)
    if name.endswith(ARROW):
        raise DatasetError(f"{place} is an Arrow table. {AS_PARQUET}")
    if name.endswith(".npz"):
        return _npz(place)
    if name.endswith(".zip"):
        return layout_of(f"zip://::{place}")
    if name.endswith(".toml"):
        raise DatasetError(f"{place} is a recipe already, which rarkit run takes. rarkit new takes images: {FORMS}.")
    if name.endswith(SUFFIXES):
        raise DatasetError(f"{place} is a single image, and a model learns from many. Name the folder that it is in.")
    with reaching(place), open_on(filesystem, path) as file:
        content = recognised(file.read(HEAD))
    is_what = f": it is {content.what}" if content is not None else ""
    raise DatasetError(f"{place} is no known form of images{is_what}. Name {FORMS}.")


def _folder(place: str, filesystem: Any, path: str) -> Layout:
    cure = f"Name {FORMS}."
    with reaching(place, cure):
        entries = filesystem.ls(path, detail=True)
    files = sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries if entry["type"] != "directory")
    files = [name for name in files if not name.startswith(".")]
    lists = [name for name in files if name.lower().endswith(LISTS)]
    if (of_list := found_lists(place, lists)) is not None:
        return of_list
    listing = listed(place, cure)
    if listing.by_folder or listing.loose:
        return _images(place, listing)
    if shards := [name for name in files if name.lower().endswith(SHARDS)]:
        return found_shards(place, shards)
    if any(name.lower().endswith(TABLES) for name in files):
        return _huggingface(place, "a folder of tables")
    if any(name.lower().endswith(ARROW) for name in files):
        raise DatasetError(f"{place} has Arrow tables, as save_to_disk of the datasets library writes them. {AS_PARQUET}")
    single = [name for name in files if name.lower().endswith((".npz", ".zip"))]
    if len(single) == 1:
        return _file(within(place, single[0]), filesystem, f"{path}/{single[0]}")
    if not entries:
        raise DatasetError(f"{place} is empty. {cure}")
    folders = sum(entry["type"] == "directory" for entry in entries)
    inside = "Its folder holds none." if folders == 1 else f"Its {folders} folders hold none."
    holds = f"It holds {some_of(files) if files else 'hidden files'}." if files or not folders else inside
    raise DatasetError(f"{place} contains no images. {holds} Image files end in {', '.join(SUFFIXES)}. {cure}")


def _images(place: str, listing: Listing) -> Layout:
    """The layout of a folder with images somewhere in it."""
    remarks = [f"Passed over: {listing.passed_over()}."] if listing.passed_over() else []
    remarks += [links_sentence(folded(listing.links_out))] if listing.links_out else []
    folders = list(listing.by_folder)
    splits = [name for name in folders if name.lower() in LIKE_SPLITS]
    training = [name for name in splits if name.lower().startswith("train")]
    others = [name for name in splits if name not in training]
    name = Choice("name", "image_folder", "images in files, a folder for each class" if folders else "images in files")
    if training and others:
        # Of folders for validation and for tests, the former: samples are compared with it.
        test = next((folder for folder in others if folder.lower().startswith("val")), others[0])
        chosen = [name, Choice("path", place, "the folder of the training and test images")]
        if (training[0], test) != (TRAIN, TEST):
            chosen += [Choice("train", training[0], "of the training images"), Choice("test", test, "of the test images")]
        unused = [folder for folder in folders if folder not in (training[0], test)]
        remarks += [f"Not used: {some_of(unused)}."] if unused else []
        return Layout(f"a folder with {training[0]} and {test} in it", tuple(chosen), tuple(remarks))
    whole = training[0] if training else folders[0] if len(folders) == 1 and not listing.loose else None
    if whole is not None and _has_folders(listing, whole):
        # One folder around them all, as archives have it, or training images alone.
        inner = layout_of(within(place, whole))
        return Layout(inner.what, inner.dataset, (*inner.remarks, f"The images in {whole} are taken for all of them."))
    if splits:
        chosen = [name, Choice("path", place, "the folder of the images"), Choice("train", "", f"{some_of(splits)} are classes")]
        return Layout("a folder with one folder for each class", tuple(chosen), tuple(remarks))
    deeper = [folder for folder in folders if _has_folders(listing, folder)]
    if deeper:
        remarks.append(
            f'Folders in the folders of classes ({some_of(deeper)}) belong to the class above; label_by = "path" makes classes '
            "of them."
        )
    without = f"a folder of images without classes, which are all {ONLY_CLASS!r}"
    what = "a folder with one folder for each class" if folders else without
    chosen = [name, Choice("path", place, "the folder of the images")]
    if max(map(len, listing.by_folder.values() or [listing.loose])) < 2:
        chosen.append(Choice("test", "", "no class has two images, of which one could be held out for tests"))
    else:
        chosen.append(Choice("train", "", "all images lie there together; a fifth of each class is held out for tests"))
    return Layout(what, tuple(chosen), tuple(remarks))


def _has_folders(listing: Listing, folder: str) -> bool:
    return any(image.relative.count("/") > 1 for image in listing.by_folder[folder])


def _npz(place: str) -> Layout:
    from rarkit.datasets.npz import TEST_IMAGES
    from rarkit.files.npz import opened

    with opened(place) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    chosen = [Choice("name", "npz", "arrays of images and labels"), Choice("path", place, "the file of the arrays")]
    test = next((name for name in TEST_IMAGES if name in names), None)
    if test is not None:
        chosen.append(Choice("test_images", test, "the array of test images in it"))
    return Layout("a file of arrays", tuple(chosen))


def _huggingface(place: str, what: str) -> Layout:
    if "huggingface" not in parts().datasets:
        raise DatasetError(f"{place} is {what}: {INSTALL_HUGGINGFACE}")
    return Layout(
        what, (Choice("name", "huggingface", "read by the plugin rarkit-hf"), Choice("path", place, "where the images are"))
    )
