"""What a part gives for some inputs, in few bytes, to compare with what it gives in another process.

Shape letters: B batch, N images, H and W height and width, C channels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageInfo
from rarkit.testing.array_reader import ArrayReader

GRIDS = ((1, 1), (1, 5), (2, 2), (4, 4), (5, 7), (8, 8), (6, 12), (12, 6), (16, 16), (24, 24), (32, 32))
TOTALS = (1, 7, 100, 450, 5000, 250_000)
READ = 50
"""Rows of a dataset, at its beginning and at its end."""


def digests(part: Any, **options: Any) -> dict[str, Any]:
    """By input, in words: a digest, or numbers that may differ by rounding."""
    of_kind: dict[str, Callable[..., dict[str, Any]]] = {
        "scan_orders": _of_scan_order,
        "permutation_schedules": _of_schedule,
        "datasets": _of_dataset,
        "tokenizers": _of_tokenizer,
        "feature_extractors": _of_feature_extractor,
        "models": _of_model_family,
    }
    return of_kind[part.kind](part, **options)


def digest(*arrays: Any) -> str:
    """A digest of arrays: their values, dtypes and shapes."""
    hashed = hashlib.sha256()
    for array in arrays:
        values = np.ascontiguousarray(array)
        hashed.update(f"{values.dtype} {values.shape}".encode())
        hashed.update(values.tobytes())
    return hashed.hexdigest()


def _of_scan_order(part: Any) -> dict[str, Any]:
    served = [grid for grid in GRIDS if part.requirement(*grid) is None]
    return {f"on a grid of {height}×{width}": digest(part.order(height, width)) for height, width in served}


def _of_schedule(part: Any, backwards: bool) -> dict[str, Any]:
    points = [(step, total) for total in TOTALS for step in sorted({point * total // 12 for point in range(13)})]
    # From the other end: what depends on the number of calls before gives other ratios.
    return {f"at step {step} of {total}": part.random_ratio(step, total) for step, total in (points[::-1] if backwards else points)}


def _of_dataset(part: Any) -> dict[str, Any]:
    seen = {}
    for split in part.splits():
        reader = part.open(split)
        count = len(reader)
        seen[f"in the number of images of {split!r}"] = str(count)
        for start in sorted({0, max(0, count - READ)}):
            block = reader.read(start, min(start + READ, count))
            rows = f"in rows {start} to {start + len(block.labels_N) - 1} of {split!r}"
            seen[rows] = digest(block.images_NHWC, block.labels_N)
    return seen


def _of_tokenizer(part: Any, info: ImageInfo, device: str) -> dict[str, Any]:
    state = learned(part, info)
    model = part.build(state, device)
    codes_BHW = model.encode(_tensor(pictures(info, 5), device))
    return {
        "in what it learns": {name: digest(values) for name, values in state.items()},
        "in the codes of images": digest(codes_BHW.cpu().numpy()),
        "in decoded images": model.decode(codes_BHW).cpu().double().mean(dim=(0, 3)).flatten()[:64].tolist(),
    }


def _of_feature_extractor(part: Any, info: ImageInfo, device: str) -> dict[str, Any]:
    state = learned(part, info)
    features = part.build(state, device)(_tensor(pictures(info, 3), device))
    numbers = {"in the features of images": features.features_BF, "in the class scores of images": features.logits_BC}
    return {
        "in what it learns": {name: digest(values) for name, values in state.items()},
        **{words: values[:, :32].cpu().flatten().tolist() for words, values in numbers.items() if values is not None},
    }


def _of_model_family(part: Any, sizes: dict[str, Any]) -> dict[str, Any]:
    from rarkit.attention.plain import Plain

    state = part.create(part.config(**sizes), Plain().build(), 1).state_dict()
    return {"in the weights drawn from seed 1": {name: digest(tensor.float().numpy()) for name, tensor in state.items()}}


def learned(part: Any, info: ImageInfo) -> dict[str, Any]:
    """What a part learns from 64 pictures, with seed 3; empty if it does not learn."""
    if not part.learns:
        return {}
    reader = ArrayReader(pictures(info, 64), np.arange(64, dtype=np.int64) % info.num_classes)
    return dict(part.fit(reader, 3))


def pictures(info: ImageInfo, count: int) -> NDArray[np.uint8]:
    """Pictures that look like something: soft blobs on a slope, with a little noise, none like its mirror images."""
    generator = np.random.default_rng(1)
    down_H, across_W = (np.linspace(0, 1, side) for side in (info.height, info.width))
    drawn = np.empty((count, info.height, info.width, info.channels))
    for image in range(count):
        slopes_C2 = generator.uniform(0.2, 0.6, (info.channels, 2)) * generator.choice([-1, 1])
        drawn[image] = slopes_C2[:, 0] * (down_H[:, None, None] - 0.5) + slopes_C2[:, 1] * (across_W[:, None] - 0.5)
        for _ in range(3):
            row, column, size = generator.uniform(0, 1, 3)
            distance_HW = (down_H[:, None] - row) ** 2 + (across_W - column) ** 2
            blob_HW = np.exp(-distance_HW / (0.02 + 0.06 * size))
            drawn[image] += blob_HW[..., None] * generator.uniform(-0.6, 0.6, info.channels)
    noise = generator.normal(0, 0.02, drawn.shape)
    levels: NDArray[np.uint8] = (255 * np.clip(0.5 + drawn + noise, 0, 1)).round().astype(np.uint8)
    return levels


def _tensor(images_NHWC: NDArray[np.uint8], device: str) -> Any:
    import torch

    return torch.from_numpy(images_NHWC).to(device)
