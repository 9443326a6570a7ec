"""Folders of class folders: names, order, crops, bad images, worker processes, and places that are not local."""

from __future__ import annotations

import io
import multiprocessing
import shutil
import subprocess
import sys
import warnings

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from rarkit.datasets.decoding import BATCH_IMAGES
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.preparation import Preparation, centre_crop, ten_crop
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.testing import DatasetSuite

pytestmark = pytest.mark.filterwarnings("ignore:.*passed over:rarkit.errors.RarkitWarning")
SIZE = 16
CLASSES = ("n02", "n03 goldfish", "été")


def png(seed: int, width: int = 23, height: int = 17) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tree() -> dict[str, bytes]:
    """Relative paths and contents: 3 × 7 training images, 2 × 3 test images, and things to pass over."""
    names = ("b.PNG", "a.png", "c.jpeg", "10.JPEG", "9.JPEG", "deeper/z.Png", "D.webp")
    files = {f"train/{folder}/{name}": png(7 * row + i) for row, folder in enumerate(CLASSES) for i, name in enumerate(names)}
    files |= {f"val/{folder}/{i}.png": png(100 + 3 * row + i) for row, folder in enumerate(CLASSES[1:]) for i in range(3)}
    others = ("train/list.txt", "train/n02/notes.txt", "train/n02/.hidden.png", "train/.cache/a.png", "train/n02/.thumbs/a.png")
    return files | dict.fromkeys(others, b"none of ours")


def planted(root: str, files: dict[str, bytes]) -> str:
    filesystem, path = fsspec.core.url_to_fs(root)
    for name, data in files.items():
        filesystem.makedirs(f"{path}/{name}".rsplit("/", 1)[0], exist_ok=True)
        filesystem.pipe_file(f"{path}/{name}", data)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return planted(str(tmp_path_factory.mktemp("images")), tree())


def expected(files: dict[str, bytes], split: str, ten: bool = False):
    """All rows, the plain way."""
    found = []
    for name, data in sorted(files.items(), key=lambda item: (item[0].split("/")[1], item[0])):
        hidden = any(step.startswith(".") for step in name.split("/"))
        if name.startswith(f"{split}/") and not hidden and not name.endswith(".txt"):
            image = Image.open(io.BytesIO(data)).convert("RGB")
            views = ten_crop(image, SIZE) if ten else [centre_crop(image, SIZE)]
            found += [(np.asarray(view), CLASSES.index(name.split("/")[1])) for view in views]
    return np.stack([image for image, _ in found]), np.array([label for _, label in found])


def same(block, images_NHWC, labels_N):
    np.testing.assert_array_equal(block.images_NHWC, images_NHWC)
    np.testing.assert_array_equal(block.labels_N, labels_N)


@pytest.mark.parametrize("crop", ["centre", "ten"])
@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_files_in_order(folder, crop, workers):
    dataset = ImageFolder(path=folder, size=SIZE, crop=crop, workers=workers)
    assert dataset.info().class_names == CLASSES
    reader = dataset.open("train")
    assert len(reader) == 21 * (10 if crop == "ten" else 1)
    same(reader.read(), *expected(tree(), "train", crop == "ten"))
    same(dataset.open("test").read(), *expected(tree(), "val"))


class TestSuite(DatasetSuite):
    @pytest.fixture(
        params=[{"crop": "ten", "workers": 0}, {"test": "", "workers": 0}, {"random_crops": 2, "flip": True, "workers": 0}],
        ids=["ten", "no test", "random"],
    )
    def part(self, folder, request):
        return ImageFolder(path=folder, size=SIZE, **request.param)


@pytest.fixture(scope="module")
def ten_rows(folder):
    readers = [ImageFolder(path=folder, size=SIZE, crop="ten", workers=workers).open("train") for workers in (0, 2)]
    return readers, readers[0].read()


@given(st.integers(0, 210), st.integers(0, 210), st.integers(1, 230), st.integers(0, 1))
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_in_any_blocks_from_any_process(ten_rows, start, stop, rows, parallel):
    readers, whole = ten_rows
    blocks = list(readers[parallel].blocks(start, stop, rows))
    assert [len(block.labels_N) for block in blocks] == [min(rows, stop - first) for first in range(start, stop, rows)]
    if blocks:
        joined = np.concatenate([block.images_NHWC for block in blocks]), np.concatenate([block.labels_N for block in blocks])
        np.testing.assert_array_equal(joined[0], whole.images_NHWC[start:stop])
        np.testing.assert_array_equal(joined[1], whole.labels_N[start:stop])


def test_a_kept_block_is_not_overwritten_and_keeps_no_other_alive(ten_rows):
    blocks = list(ten_rows[0][1].blocks(0, 60, 7))
    assert all(block.images_NHWC.base is None or block.images_NHWC.base.nbytes == block.images_NHWC.nbytes for block in blocks[:-1])


def test_a_reader_left_early_does_not_hang(ten_rows):
    reader, whole = ten_rows[0][1], ten_rows[1]
    blocks = reader.blocks(0, 210, 5)
    next(blocks)
    blocks.close()
    same(reader.read(50, 100), whole.images_NHWC[50:100], whole.labels_N[50:100])


@pytest.mark.parametrize("test", ["", None])
def test_without_a_test_folder(folder, test):
    dataset = ImageFolder(path=folder, test=test)
    assert dataset.splits() == ("train",)
    with pytest.raises(DatasetError, match="no test split"):
        dataset.open("test")


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_in_memory(on_bad_image):
    root = planted(f"memory://tree-{on_bad_image}", tree())
    dataset = ImageFolder(path=root, size=SIZE, workers=2, on_bad_image=on_bad_image)
    assert dataset.info().class_names == CLASSES
    same(dataset.open("train").read(), *expected(tree(), "train"))


def test_any_fsspec_url(folder, tmp_path):
    shutil.make_archive(str(tmp_path / "tree"), "zip", folder)
    for place in (f"file://{folder}", folder + "/", f"zip://::{tmp_path}/tree.zip", f"simplecache::file://{folder}"):
        same(ImageFolder(path=place, size=SIZE, workers=0).open("train").read(), *expected(tree(), "train"))
    zipped = ImageFolder(path=f"zip://::{tmp_path}/tree.zip", size=SIZE, workers=1)
    same(zipped.open("train").read(), *expected(tree(), "train"))


def test_on_an_object_store(s3_bucket):
    root = planted(
        f"s3://{s3_bucket}/photographs", {name: data for name, data in tree().items() if "n02" in name or "val" not in name}
    )
    dataset = ImageFolder(path=root, size=SIZE, workers=2, test="")
    assert dataset.info().class_names == CLASSES
    same(dataset.open("train").read(), *expected(tree(), "train"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_an_error_that_names_it(tmp_path, workers):
    files = tree() | {"train/n03 goldfish/c.jpeg": png(1)[:200]}
    dataset = ImageFolder(path=planted(str(tmp_path), files), size=SIZE, workers=workers)
    with pytest.raises(DatasetError, match=r"train/n03 goldfish/c\.jpeg \(200 bytes\) cannot be read as an image"):
        dataset.open("train").read()
    with pytest.raises(DatasetError, match=r'on_bad_image = "skip" in \[dataset\] leaves out images that cannot be read\.$'):
        dataset.open("train").read()
    assert len(dataset.open("train").read(0, 7).labels_N) == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_skipped_and_counted(tmp_path, workers):
    bad = {f"train/{CLASSES[1]}/{name}": data for name, data in {"9.JPEG": b"", "a.png": png(1)[:90], "D.webp": b"RIFF"}.items()}
    bad |= {f"train/{CLASSES[2]}/b.PNG": b"no image", "val/été/0.png": png(3)[:-30]}
    good = {name: data for name, data in tree().items() if name not in bad}
    dataset = ImageFolder(path=planted(str(tmp_path), tree() | bad), size=SIZE, on_bad_image="skip", crop="ten", workers=workers)
    with pytest.warns(
        RarkitWarning, match=r"^4 of 21 images are skipped.*\n.*n03 goldfish/9\.JPEG.*(\n.*){2}\n… and 1 more"
    ) as caught:
        reader = dataset.open("train")
    assert sum(str(warning.message).startswith("4 of 21") for warning in caught) == 1
    assert len(reader) == 170
    same(reader.read(), *expected(good, "train", ten=True))
    same(reader.read(95, 133), *(rows[95:133] for rows in expected(good, "train", ten=True)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ImageFolder(**dataset.model_dump() | {"workers": 0}).open("train")) == 170  # looked through once in a process
    with pytest.warns(RarkitWarning, match="1 of 6"):
        same(dataset.open("test").read(), *expected(good, "val"))


def test_nothing_left_after_skipping_is_an_error(tmp_path):
    root = planted(str(tmp_path), {"train/a/1.png": b"", "train/a/2.png": b"no"})
    with pytest.raises(DatasetError, match=r"none of the 2 images can be decoded.*a/1\.png"):
        ImageFolder(path=root, test="", on_bad_image="skip", workers=0).open("train")


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_file_that_went_away_is_never_skipped(tmp_path, on_bad_image):
    dataset = ImageFolder(path=planted(str(tmp_path), tree()), size=SIZE, workers=0, on_bad_image=on_bad_image)
    assert dataset.content()
    (tmp_path / "train/n02/a.png").unlink()
    with pytest.raises(DatasetError, match=r"there is no .*train/n02/a\.png"):
        dataset.open("train").read()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, r"(contains no images, and no folder train or val|there is no memory).*[Ss]et path"),
        ({"train/readme.txt": b""}, r"/train contains no images, but 1 file that is not an image \(readme\.txt\)\."),
        ({"train/a/readme.txt": b""}, r"no images, but 1 folder without images \(a\), 1 file .*\(a/readme\.txt\)"),
        ({"train/a/1.png": b"", "val/1.png": b""}, "/val lie in no class folders, but those in .*/train do"),
        ({"Training/a/1.png": b"", "test/a/1.png": b""}, "but Training, test. Set train and test to the names"),
        ({"a/1.png": b"", "b/1.png": b""}, "no class in .* has two images"),
        ({"train/a/1.png": b"", "val/b/1.png": b""}, r"1 classes that .*/train does not have: b\."),
        ({"train/a/1.png": b""}, r'there is no .*/val\. .*set test = ""\.'),
        ({"train": b"a file"}, "train"),
    ],
)
@pytest.mark.parametrize("root", ["", "memory://"])
def test_what_is_not_there(tmp_path, files, said, root):
    place = planted(f"{root}{tmp_path}", files)
    with pytest.raises(DatasetError, match=said):
        ImageFolder(path=place).content()


def test_no_way_to_the_place():
    with pytest.raises(DatasetError, match="nowhere://x"):
        ImageFolder(path="nowhere://x").info()


def test_the_fingerprint_follows_names_and_sizes(tmp_path):
    root = planted(str(tmp_path), tree())
    before = ImageFolder(path=root).identity()
    assert ImageFolder(path=root, workers=3).identity() == before
    assert "workers" not in before
    assert ImageFolder(path=planted(str(tmp_path / "elsewhere"), tree())).identity() == before
    planted(root, {"train/n02/notes.txt": b"changed"})
    assert ImageFolder(path=root).identity() == before
    planted(root, {"train/n02/a.png": b"changed"})
    changed = ImageFolder(path=root).identity()
    assert changed["content"]["train"] != before["content"]["train"]
    assert changed["content"]["test"] == before["content"]["test"]
    copy = ImageFolder(path=root)
    copy.content()
    assert copy.model_copy(update={"train": "val", "test": ""}).content()["train"] != copy.content()["train"]


def test_a_process_that_dies_is_an_error_with_a_cure(folder, tmp_path):
    """A script without a guard cannot spawn processes: each would run the script again."""
    script = tmp_path / "script.py"
    call = f"ImageFolder(path={folder!r}, size={SIZE}, crop='ten', workers=1, test='').open('train').read()"
    script.write_text(f"from rarkit.datasets.image_folder import ImageFolder\n{call}\n")
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, env={"PYTHONPATH": "."}, check=False)
    assert "DatasetError: a worker process that decodes images died" in said.stderr
    assert "Lower the dataset's workers" in said.stderr


def test_planning_loads_no_decoder(folder):
    code = (
        "import sys; from rarkit.datasets.image_folder import ImageFolder; "
        f"d = ImageFolder(path={folder!r}); d.identity(), d.info(); print({{'PIL', 'torch'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_few_images_need_no_process(folder):
    reader = ImageFolder(path=folder, size=SIZE, workers=2).open("train")
    before = set(multiprocessing.active_children())
    reader.read(0, BATCH_IMAGES)
    assert set(multiprocessing.active_children()) <= before
    reader.read(0, BATCH_IMAGES + 1)
    assert set(multiprocessing.active_children()) - before


def test_imagenet_classes_are_known_without_the_data():
    info = ImageFolder(path="nowhere", class_list="imagenet").info()
    assert info.num_classes == len(set(info.class_names)) == 1000
    # Labels that every user of ImageNet knows by number.
    assert [info.class_names[label] for label in (0, 207, 281, 972)] == ["tench", "golden retriever", "tabby", "cliff"]


def test_a_folder_that_is_not_imagenet_s_is_refused(tmp_path):
    planted(str(tmp_path), {"train/n01440764/1.png": b""})
    with pytest.raises(DatasetError, match="contains 1 folders of images, but ImageNet has 1,000 classes"):
        ImageFolder(path=str(tmp_path), test=None, class_list="imagenet").open("train")


@pytest.mark.parametrize("workers", [0, 1])
def test_augmented_rows_are_the_views_of_each_file(folder, workers):
    how = {"random_crops": 3, "crop_scale": (0.5, 0.9), "crop_seed": 4, "flip": True}
    part = ImageFolder(path=folder, size=SIZE, workers=workers, **how)
    preparation = Preparation(SIZE, **how)
    names = sorted(name for name in tree() if name.startswith("train/") and "/." not in name and not name.endswith(".txt"))
    views = np.concatenate([preparation(tree()[name], name, number)[0] for number, name in enumerate(names)])
    reader = part.open("train")
    assert len(reader) == part.count("train") == 6 * len(names)
    assert (reader.views, part.open("test").views) == (6, 1)
    same(reader.read(), views, np.repeat(np.arange(3), 6 * 7))
    rows_N = np.array([0, 5, 6, 100, 125])
    same(next(reader.chosen(rows_N, 9)), views[rows_N], rows_N // 42)
    same(part.open("test").read(), *expected(tree(), "val"))


def test_a_bad_image_moves_no_crop_of_the_others(tmp_path):
    files = {f"train/a/{number}.png": png(number) for number in range(4)}
    root = planted(str(tmp_path), files)
    how = {"path": root, "size": SIZE, "workers": 0, "test": "", "random_crops": 2}
    whole = ImageFolder(**how).open("train").read()
    planted(root, {"train/a/1.png": b"damaged"})
    with pytest.warns(RarkitWarning, match="1 of 4 images are skipped"):
        rest = ImageFolder(**how, on_bad_image="skip").open("train").read()
    np.testing.assert_array_equal(rest.images_NHWC, whole.images_NHWC[[0, 1, 4, 5, 6, 7]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": "ten", "flip": True}, "set neither flip nor random_crops"),
        ({"crop": "ten", "random_crops": 2}, "set neither flip nor random_crops"),
        ({"crop_seed": 1}, "set random_crops, too"),
        ({"crop_scale": (0.5, 1)}, "set random_crops, too"),
        ({"random_crops": 2, "crop_scale": (1, 0.5)}, "the least side comes first"),
        ({"random_crops": 2, "crop_scale": (0, 0.5)}, "0.05"),
        ({"random_crops": 101}, "100"),
        ({"train": "", "test": "held_out"}, "test is 'held_out': set train to the folder of the training images"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValidationError, match=message):
        ImageFolder(path="x", **settings)


NESTED = ("dog/terrier/b.png", "dog/a.png", "dog/poodle/c.png", "cat/e.png", "dog.x/f.png", "loose.png")


@pytest.mark.parametrize(
    ("label_by", "classes", "passed"),
    [
        ("folder", {"cat": ["cat/e"], "dog": ["dog/a", "dog/poodle/c", "dog/terrier/b"], "dog.x": ["dog.x/f"]}, True),
        (
            "path",
            {
                "cat": ["cat/e"],
                "dog": ["dog/a"],
                "dog.x": ["dog.x/f"],
                "dog/poodle": ["dog/poodle/c"],
                "dog/terrier": ["dog/terrier/b"],
            },
            True,
        ),
        ("nothing", {"images": sorted(name.removesuffix(".png") for name in NESTED)}, False),
    ],
)
@pytest.mark.filterwarnings("default::rarkit.errors.RarkitWarning")
def test_what_makes_classes(tmp_path, label_by, classes, passed):
    files = {name: png(number, SIZE, SIZE) for number, name in enumerate(NESTED)}
    part = ImageFolder(path=planted(str(tmp_path), files), size=SIZE, workers=0, train="", test="", label_by=label_by)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert part.classes() == tuple(classes)
    assert any("1 image that lies in no folder" in str(each.message) for each in told) == passed
    block = part.open("train").read()
    rows = [(name, label) for label, names in enumerate(classes.values()) for name in names]
    same(
        block,
        np.stack([np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name, _ in rows]),
        np.array([label for _, label in rows]),
    )
