"""tokenize: images to grids of codes in raster order, shared by all scan orders and permutation schedules.

Ranks take blocks, the chunks of the store, in turn; whoever encodes a block does so in the same batches, to the same bits.

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
from rarkit.runtime.shared_progress import shared_task
from rarkit.stages.base import Stage, View, Work, read_state, rows_left_off
from rarkit.stages.shared_blocks import check_length, missing_on_all, vouch_for_all
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
    is_shared = True

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
        splits = ((split, rows_left_off(output, *_arrays(split))) for split in view.splits)
        return ", ".join(f"{split} {rows}" for split, rows in splits if rows) or None

    def run(self, work: Work[TokenizeView]) -> None:
        import torch

        view, output, ranks = work.view, work.output, work.ranks
        readers = {split: view.dataset.open(split) for split in view.splits}
        if ranks.first:
            for split, reader in readers.items():
                self._create(view, output, split, len(reader))
        with torch.inference_mode():
            model = view.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
            missing = missing_on_all(work, lambda: {split: _arrays(split) for split in view.splits})
            for split, reader in readers.items():
                tokens, labels = _arrays(split)
                layout = output.layout(tokens)
                check_length(reader, split, layout.shape[0])
                if missing[split] and ranks.first:
                    view.tokenizer.check_round_trip(model, reader.read(0, 1))
                done = len(reader) - sum(stop - start for start, stop in map(layout.block_rows, missing[split]))
                with shared_task(ranks, work.reporter, f"tokenize {split}", len(reader), "images", done) as advance:
                    for block in missing[split][ranks.rank :: ranks.size]:
                        tokens_NL, labels_N = _encode(model, reader, *layout.block_rows(block), work, advance)
                        output.write_block(block, **{tokens: tokens_NL.astype(layout.dtype), labels: labels_N.astype(np.int32)})
        vouch_for_all(work)
        if ranks.first:
            output.finish(grid=list(view.grid))

    def _create(self, view: TokenizeView, output: StageOutput, split: Split, count: int) -> None:
        length, dtype = view.grid[0] * view.grid[1], token_dtype(view.codebook_size)
        rows = rows_per_block(count, length * dtype.itemsize)
        tokens, labels = _arrays(split)
        output.create(tokens, (count, length), dtype, rows)
        output.create(labels, (count,), np.int32, rows)


def _arrays(split: Split) -> tuple[str, str]:
    return f"{split}_tokens", f"{split}_labels"


def _encode(
    model: TokenizerModel, reader: ImageReader, start: int, stop: int, work: Work[TokenizeView], advance: Advance
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    import torch

    tokens, labels = [], []
    for block in reader.blocks(start, stop, BATCH_ROWS):
        work.ranks.check()
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
