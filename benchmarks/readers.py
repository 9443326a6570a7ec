"""Reading encoded images from a folder, tar shards and Parquet, beside the rate at which a tokenizer's network encodes them.

    python benchmarks/readers.py [--images 10000] [--side 256] [--workers N] [--encoded 64] [--device cuda] [--quick] [--save]

Makes JPEG files (quality 90) of crops of scikit-learn's two photographs, once, and lays them out in a folder of class folders, in
tar shards of 1,000 images, and in Parquet as the datasets library writes it (with the plugin rarkit-hf; without it, that reader is
left out, and the output says so). Each reader reads all images in order, decoded and cropped, in blocks of 64, with as many worker
processes as there are cores, and a tenth of them without workers; the first images, with which workers start, are not timed. All
must read the same pixels. The network is that of `maskgit_vqgan` at its released size with random weights. It encodes images in
float32 before and after each reader; its rate is the median. Encoding is bound by the network if the slowest reader is faster.

The page cache is warm: this compares readers, not disks. --quick takes 400 images and 4 encoded ones. --save writes
benchmarks/results/readers.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from PIL import Image
from sklearn.datasets import load_sample_image

import rarkit
from rarkit.randomness import uniforms
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN

RESULTS = Path(__file__).parent / "results"
CLASSES = ("china", "flower")
IN_SHARD, BLOCK = 1000, 64
QUICK = {"images": 400, "encoded": 4}


def encoded_images(count: int, side: int) -> list[list[bytes]]:
    """JPEG files of each class, ``count`` in all."""
    photographs = [load_sample_image(f"{name}.jpg") for name in CLASSES]
    files: list[list[bytes]] = [[] for _ in CLASSES]
    chance_N2 = uniforms(0, "benchmark", 0, np.arange(count), 2)
    for number, (down, across) in enumerate(chance_N2):
        photograph = photographs[number % len(CLASSES)]
        height, width, _ = photograph.shape
        top, left = int(down * (height - side + 1)), int(across * (width - side + 1))
        file = io.BytesIO()
        Image.fromarray(photograph[top : top + side, left : left + side]).save(file, "JPEG", quality=90)
        files[number % len(CLASSES)].append(file.getvalue())
    return files


def folder_of(files: list[list[bytes]], place: Path) -> dict[str, Any]:
    """A folder for each class; the dataset that reads it."""
    for name, images in zip(CLASSES, files, strict=True):
        (place / name).mkdir(parents=True)
        for number, data in enumerate(images):
            (place / name / f"{number:06}.jpg").write_bytes(data)
    return {"name": "image_folder", "path": str(place), "train": "", "test": ""}


def shards_of(files: list[list[bytes]], place: Path) -> dict[str, Any]:
    """Tar shards in the format of the WebDataset library."""
    place.mkdir()
    rows = [(data, label) for label, images in enumerate(files) for data in images]
    shards = -(-len(rows) // IN_SHARD)
    for shard in range(shards):
        with tarfile.open(place / f"{shard:04}.tar", "w") as tar:
            for number, (data, label) in enumerate(rows[shard * IN_SHARD : (shard + 1) * IN_SHARD]):
                for ending, content in (("jpg", data), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return {"name": "webdataset", "urls": f"{place}/{{0000..{shards - 1:04}}}.tar", "class_names": CLASSES}


def parquet_of(files: list[list[bytes]], place: Path) -> dict[str, Any]:
    """One Parquet file, as the datasets library writes it."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    images = [{"bytes": data, "path": None} for several in files for data in several]
    labels = [label for label, several in enumerate(files) for _ in several]
    place.mkdir()
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"image": images, "label": labels}, features).to_parquet(str(place / "all.parquet"))
    return {"name": "huggingface", "path": f"{place}/all.parquet", "test": ""}


def read(tables: dict[str, Any], side: int, workers: int, count: int) -> tuple[float, int]:
    """Images a second over ``count`` images after the first blocks, and the sum of all pixels that were read."""
    name = tables["name"]
    part = rarkit.parts().datasets[name](
        **{key: value for key, value in tables.items() if key != "name"}, size=side, workers=workers
    )
    reader = part.open("train")
    pixels, timed, began = 0, 0, None
    warm = min(count // 4, BLOCK * max(1, workers))
    for block in reader.blocks(0, count, BLOCK):
        if began is not None:
            timed += len(block.labels_N)
        pixels += int(block.images_NHWC.sum(dtype=np.int64))
        warm -= len(block.labels_N)
        if began is None and warm <= 0:
            began = time.perf_counter()
    assert began is not None, "too few images to be timed"
    assert timed > 0, "too few images to be timed"
    return timed / (time.perf_counter() - began), pixels


class Encoder:
    """The network at its released size, with random weights, and the rates at which it encoded."""

    def __init__(self, device: str, side: int, images: int) -> None:
        self._model = MaskGITVQGAN(weights=None).build({}, device)
        batch = min(images, 32 if device == "cuda" else 4)
        self._images = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8, device=device)
        self._batches, self._device = max(1, images // batch), device
        self.rates: list[float] = []
        self._model.encode(self._images)

    @torch.inference_mode()
    def measure(self) -> None:
        """Encodes some images."""
        self._wait()
        began = time.perf_counter()
        for _ in range(self._batches):
            self._model.encode(self._images)
        self._wait()
        self.rates.append(self._batches * len(self._images) / (time.perf_counter() - began))

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    options = arguments()
    encoder = Encoder(options.device, options.side, options.encoded)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="rarkit-benchmark-", dir=options.folder) as scratch:
        files = encoded_images(options.images, options.side)
        sizes = [len(data) for several in files for data in several]
        layouts = {"folder": folder_of, "tar": shards_of, "parquet": parquet_of}
        left_out = [] if importlib.util.find_spec("rarkit_hf") else ["parquet"]
        for name in left_out:
            print(f"{name}: left out, because the plugin rarkit-hf is not installed")
            del layouts[name]
        encoder.measure()
        for name, lay_out in layouts.items():
            tables = lay_out(files, Path(scratch) / name)
            rate, pixels = read(tables, options.side, options.workers, options.images)
            alone, _ = read(tables, options.side, 0, max(options.images // 10, 2 * BLOCK))
            rows.append({"reader": name, "images_per_second": rate, "without_workers": alone, "pixels": pixels})
            print(f"{name:8} {rate:8.0f} images/s with {options.workers} workers, {alone:6.0f} without")
            encoder.measure()
    assert len({row["pixels"] for row in rows}) == 1, "readers read different pixels"
    network, slowest = statistics.median(encoder.rates), min(rows, key=lambda row: row["images_per_second"])
    bound = "the network" if slowest["images_per_second"] > network else f"the reader {slowest['reader']}"
    times = slowest["images_per_second"] / network
    print(f"network  {network:8.2f} images/s on {options.device}")
    print(f"Encoding is bound by {bound}: the slowest reader is {times:.1f} times as fast as the network.")
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        shown = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
        result = {
            "machine": machine(),
            "options": shown,
            "file_bytes": statistics.mean(sizes),
            "network_images_per_second": encoder.rates,
            "readers": rows,
            "left_out": left_out,
            "bound_by": bound,
        }
        (RESULTS / "readers.json").write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--encoded", type=int, default=64, help="images that the network encodes at a time of measuring")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--folder", type=Path, help="temporary folder with room for 1 GB; the system's by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if options.quick:
        vars(options).update(QUICK)
    return options


if __name__ == "__main__":
    main()
