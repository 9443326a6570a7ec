"""Parquet files of small images, as the datasets library writes them, and the dataset that reads them."""

from __future__ import annotations

import io

import datasets
import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, Image, Value
from PIL import Image as Pillow
from pyarrow import parquet

from rarkit_hf import HuggingFace

datasets.disable_progress_bars()
SIZE = 5


def png(shade: int) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(np.full((SIZE, SIZE, 3), shade, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def rows(numbers, labels, label_type=None) -> datasets.Dataset:
    """Images of the shade of their number."""
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in numbers]
    features = {"note": Value("string"), "image": Image(), "label": label_type or ClassLabel(names=["cat", "dog", "ant"])}
    table = {"note": [f"{number}" for number in numbers], "image": images, "label": list(labels)}
    return datasets.Dataset.from_dict(table, Features(features))


def written(place, **columns) -> str:
    """A table that the library did not write."""
    parquet.write_table(pa.table(columns), place, row_group_size=2)
    return str(place)


def made(path, **more) -> HuggingFace:
    return HuggingFace(path=str(path), size=SIZE, workers=0, **more)


def read(part: HuggingFace, split="train") -> list[tuple[int, int]]:
    """Number and label of each image."""
    block = part.open(split).read()
    return [(int(image[0, 0, 0]), int(label)) for image, label in zip(block.images_NHWC, block.labels_N, strict=True)]
