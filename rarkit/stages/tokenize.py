"""tokenize: images to grids of codes in raster order, shared by all scan orders and permutation schedules.

Shape letters: N images, B batch, H, W, C height, width and channels of an image (H, W of codes: of the grid), L tokens per image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, final

import numpy as np
from numpy.typing import NDArray

from rarkit.cache.chunk_layout import rows_per_block, token_dtype
from rarkit.cache.output import StageOutput
from rarkit.datasets.base import Dataset
from rarkit.images import ImageReader, Split
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.progress import Advance
from rarkit.stages.base import Stage, View, Work, read_state, rows_left_off
from rarkit.tokenizers.base import Tokenizer, TokenizerModel

BATCH_ROWS = 256


@final
class TokenizeView(View):
    """What ``tokenize`` reads."""

    dataset: Dataset
    tokenizer: Tokenizer
    # Dataset and tokenizer determine the rest.
    splits: Annotated[tuple[Split, ...], NotInFingerprint()]
    grid: Annotated[Grid, NotInFingerprint()]
    codebook_size: Annotated[int, NotInFingerprint()]


@final
class Tokenize(Stage[TokenizeView]):
    """Images → ``<split>_tokens`` (N, L) in raster order and ``<split>_labels`` (N,)."""

    name = "tokenize"

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        measured = recipe.evaluate is not None and recipe.evaluate.yardsticks
        trained = recipe.train is not None and recipe.train.tokens is None
        if not (measured or trained):
            return None
        return ("fit",) if recipe.tokenizer.learns else ()

    def view(self, experiment: Experiment) -> TokenizeView:
        recipe = experiment.recipe
        return TokenizeView(
            dataset=recipe.dataset,
            tokenizer=recipe.tokenizer,
            splits=experiment.splits,
            grid=experiment.grid,
            codebook_size=experiment.codebook_size,
        )

    def left_off(self, view: TokenizeView, output: StageOutput) -> str | None:
        splits = ((split, rows_left_off(output, f"{split}_tokens", f"{split}_labels")) for split in view.splits)
        return ", ".join(f"{split} {rows}" for split, rows in splits if rows) or None

    def run(self, work: Work[TokenizeView]) -> None:
        import torch

        view, output = work.view, work.output
        length, dtype = view.grid[0] * view.grid[1], token_dtype(view.codebook_size)
        with torch.inference_mode():
            model = view.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
            for split in view.splits:
                reader = view.dataset.open(split)
                rows = rows_per_block(len(reader), length * dtype.itemsize)
                names = f"{split}_tokens", f"{split}_labels"
                output.create(names[0], (len(reader), length), dtype, rows)
                output.create(names[1], (len(reader),), np.int32, rows)
                missing = output.missing_blocks(names)
                if missing:
                    view.tokenizer.check_round_trip(model, reader.read(0, 1))
                todo = sum(stop - start for start, stop in (output.block_rows(names[0], block) for block in missing))
                with work.reporter.task(f"tokenize {split}", len(reader), "images", len(reader) - todo) as advance:
                    for block in missing:
                        start, stop = output.block_rows(names[0], block)
                        tokens_NL, labels_N = _encode(model, reader, start, stop, advance)
                        arrays = {names[0]: tokens_NL.astype(dtype), names[1]: labels_N.astype(np.int32)}
                        output.write_block(block, **arrays)
        output.finish(grid=list(view.grid))


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
    """Decodes tokens in raster order to images, in batches (B, H, W, C) uint8."""
    import torch

    for start in range(0, len(tokens_NL), batch_size):
        codes_BHW = torch.from_numpy(tokens_NL[start : start + batch_size].astype(np.int64)).reshape(-1, *grid)
        yield model.decode(codes_BHW).cpu().numpy()
