"""tokenize: images to raster grids of codes, which every scan order and schedule shares.

Shape letters: N images, B rows of a batch, H, W, C image height, width, channels, L tokens of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.images import ImageReader
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid, read_state
from rarkit.runtime.progress import Advance
from rarkit.tokenizers.base import TokenizerModel

BATCH_ROWS = 256
SMALLEST_BLOCK, LARGEST_BLOCK_BYTES, BLOCKS = 256, 16 * 2**20, 64


@final
class Tokenize(Stage):
    """Images → ``<split>_tokens`` (N, L) in raster order and ``<split>_labels`` (N,)."""

    name = "tokenize"

    def wanted(self, recipe: Recipe) -> bool:
        measured = recipe.evaluate is not None and recipe.evaluate.yardsticks
        return measured or (recipe.train is not None and recipe.train.tokens is None)

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        return ("fit",) if recipe.tokenizer.learns else ()

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        return {"dataset": recipe.dataset.identity(), "tokenizer": recipe.tokenizer.identity()}

    def run(self, work: Work) -> None:
        import torch

        recipe, output = work.recipe, work.output
        height, width = model_grid(recipe)
        with torch.inference_mode():
            model = recipe.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
            for split in recipe.dataset.splits():
                reader = recipe.dataset.open(split)
                dtype = token_dtype(recipe.tokenizer.codebook_size())
                rows = rows_per_block(len(reader), height * width * dtype.itemsize)
                names = f"{split}_tokens", f"{split}_labels"
                output.create(names[0], (len(reader), height * width), dtype, rows)
                output.create(names[1], (len(reader),), np.int32, rows)
                missing = output.missing_blocks(names)
                todo = sum(stop - start for start, stop in (output.block_rows(names[0], block) for block in missing))
                with work.reporter.task(f"tokenize {split}", len(reader), "images", len(reader) - todo) as advance:
                    for block in missing:
                        start, stop = output.block_rows(names[0], block)
                        tokens_NL, labels_N = _encode(model, reader, start, stop, advance)
                        arrays = {names[0]: tokens_NL.astype(dtype), names[1]: labels_N.astype(np.int32)}
                        output.write_block(block, **arrays)
        output.finish(grid=[height, width])


def _encode(
    model: TokenizerModel, reader: ImageReader, start: int, stop: int, advance: Advance
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    import torch

    tokens, labels = [], []
    for block in reader.blocks(start, stop, BATCH_ROWS):
        codes_BHW = model.encode(torch.from_numpy(block.images_NHWC))
        tokens.append(codes_BHW.flatten(1).cpu().numpy())
        labels.append(block.labels_N)
        advance(len(block.labels_N))
    return np.concatenate(tokens), np.concatenate(labels)


def decoded(
    model: TokenizerModel, tokens_NL: NDArray[np.int64], grid: tuple[int, int], batch_size: int = BATCH_ROWS
) -> Iterator[NDArray[np.uint8]]:
    """Images (B, H, W, C) uint8 of raster tokens, in batches."""
    import torch

    for start in range(0, len(tokens_NL), batch_size):
        codes_BHW = torch.from_numpy(tokens_NL[start : start + batch_size].astype(np.int64)).reshape(-1, *grid)
        yield model.decode(codes_BHW).cpu().numpy()


def token_dtype(codebook_size: int) -> np.dtype[Any]:
    """The smallest type that holds every code."""
    return np.dtype(np.uint16 if codebook_size <= 2**16 else np.int32)


def rows_per_block(count: int, row_bytes: int) -> int:
    """Rows of a chunk: some sixty chunks, so that little is lost to a kill, but neither tiny nor over 16 MiB."""
    return max(1, min(max(SMALLEST_BLOCK, -(-count // BLOCKS)), LARGEST_BLOCK_BYTES // row_bytes))
