"""sample: tokens drawn from the model along the scan order, decoded to images.

Samples are stored in blocks, one chunk each. Consecutive blocks that fill a batch form a stretch, and ranks generate stretches in
turn, while a background thread decodes and stores the previous batch. A stretch is always generated whole and in the same batches,
by whichever rank and even if only some of its blocks are missing. So neither interruptions nor the number of ranks change the
result, even in types coarser than float32, in which a sample depends on its batch.

Shape letters: M samples, B batch, L tokens per image, H, W, C height, width and channels of an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self, final

import numpy as np
from numpy.typing import NDArray

from rarkit.attention.base import AttentionBackend
from rarkit.cache.chunk_layout import rows_per_block, token_dtype
from rarkit.cache.output import StageOutput
from rarkit.models.base import ModelFamily
from rarkit.models.config import ModelConfig
from rarkit.recipe.experiment import Experiment, Grid
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint
from rarkit.runtime.background import Background
from rarkit.runtime.progress import Advance
from rarkit.runtime.shared_progress import shared_task
from rarkit.sampling.precision import MODEL_DTYPES, SamplingPrecision
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.base import Stage, View, Work, read_state, rows_left_off
from rarkit.stages.shared_blocks import missing_on_all, vouch_for_all
from rarkit.stages.tokenize import decoded
from rarkit.stages.train import trained_model
from rarkit.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from rarkit.models.image_model import ImageModel
    from rarkit.sampling.decoder import Decodable

ARRAYS = ("tokens", "labels", "images")
Drawn = tuple[int, NDArray[np.int64]]
"""Number of a block, and its tokens (B, L) in raster order."""


@final
class ModelSource(View):
    """The model to sample from or to measure likelihoods with: trained, or loaded from ``model.weights``."""

    model: ModelFamily
    config: ModelConfig
    attention: AttentionBackend
    precision: SamplingPrecision

    @classmethod
    def of(cls, experiment: Experiment) -> Self | None:
        """The model that a recipe samples from; None if it does not sample."""
        recipe = experiment.recipe
        if recipe.sample is None:
            return None
        return cls(model=recipe.model, config=experiment.config, attention=recipe.attention, precision=recipe.sample.precision)


@final
class SampleView(View):
    """What ``sample`` reads."""

    seed: int
    sample: SampleSettings
    source: ModelSource
    scan_order: ScanOrder
    grid: Annotated[Grid, NotInFingerprint()]
    """Height and width of the token grid; the number of cells is in the fingerprint through the source's ``config``."""
    tokenizer: Tokenizer
    image_shape: tuple[int, int, int]
    """Height, width, channels. Nothing else of the dataset is read, so released weights can be sampled without data."""
    classes: Annotated[tuple[int, ...], NotInFingerprint()]
    """Labels of the classes to sample; settings and number of classes determine them."""
    batch_size: int | None = None
    """The batch size in types coarser than float32, in which samples may depend on it; None in float32."""

    @property
    def labels_M(self) -> NDArray[np.int64]:
        """The class of each sample, (M,) int64: ``per_class`` times the first class, then the next, …"""
        return np.repeat(np.array(self.classes, dtype=np.int64), self.sample.per_class)


@final
class Sample(Stage[SampleView]):
    """Model → ``tokens`` (M, L) in raster order, ``labels`` (M,), ``images`` (M, H, W, C)."""

    name = "sample"
    is_shared = True

    def upstream(self, recipe: Recipe) -> tuple[str, ...] | None:
        if recipe.sample is None:
            return None
        return (*(("fit",) if recipe.tokenizer.learns else ()), *(("train",) if recipe.train is not None else ()))

    def view(self, experiment: Experiment) -> SampleView | None:
        recipe, source = experiment.recipe, ModelSource.of(experiment)
        if recipe.sample is None or source is None:
            return None
        return SampleView(
            seed=experiment.sample_seed,
            # By label, so that the fingerprint does not depend on how a class is named. The seed is that of the view.
            sample=recipe.sample.model_copy(update={"classes": recipe.sample.classes and experiment.sample_classes, "seed": None}),
            source=source,
            scan_order=recipe.scan_order,
            grid=experiment.grid,
            tokenizer=recipe.tokenizer,
            image_shape=experiment.image_shape,
            classes=experiment.sample_classes,
            batch_size=None if recipe.sample.precision == "float32" else recipe.sample.batch_size,
        )

    def left_off(self, view: SampleView, output: StageOutput) -> str | None:
        return rows_left_off(output, *ARRAYS)

    def run(self, work: Work[SampleView]) -> None:
        import torch

        output, ranks = work.output, work.ranks
        if ranks.first:
            _create(work)
        missing = set(missing_on_all(work, lambda: {"samples": ARRAYS})["samples"])
        layout = output.layout("images")
        batch_size = work.view.sample.batch_size
        todo = [stretch for stretch in stretches(layout.shape[0], layout.rows, batch_size) if missing & set(stretch.blocks)]
        own = todo[ranks.rank :: ranks.size]
        rows = {block: layout.block_rows(block) for stretch in own for block in stretch.blocks if block in missing}
        done = layout.shape[0] - sum(stop - start for start, stop in map(layout.block_rows, missing))
        with (
            shared_task(ranks, work.reporter, "sample", layout.shape[0], "images", done) as advance,
            torch.inference_mode(),
        ):
            _draw(work, own, rows, advance)
        vouch_for_all(work)
        if ranks.first:
            output.finish()


def _create(work: Work[SampleView]) -> None:
    """Creates the arrays. Those of an interrupted run keep their chunk size, even if this run would choose another."""
    view, output = work.view, work.output
    count = len(view.labels_M)
    begun = output.begun().arrays.get("tokens")
    rows = begun.rows if begun else sample_rows(count, math.prod(view.image_shape), view.sample.batch_size)
    output.create("tokens", (count, view.source.config.seq_len), token_dtype(view.source.config.codebook_size), rows)
    output.create("labels", (count,), np.int32, rows)
    output.create("images", (count, *view.image_shape), np.uint8, rows)


def _draw(work: Work[SampleView], own: list[Stretch], rows: dict[int, tuple[int, int]], advance: Advance) -> None:
    """Generates stretches; those of their blocks that are in ``rows`` are decoded and stored in the background."""
    import torch

    from rarkit.sampling.generation import generate

    view, ranks, settings = work.view, work.ranks, work.view.sample
    labels_M, order_L = view.labels_M, torch.from_numpy(view.scan_order.order(*view.grid))
    model = prepared(sampling_model(view.source, work.inputs.get("train"), work.device), settings)
    # One batch may wait while a second is decoded and a third is generated.
    waiting = max((len(stretch.blocks) for stretch in own), default=1)
    with Background(_storing(work, rows, advance), waiting=waiting, around=_own_stream(work.device)) as background:

        def check(step: int, tokens_BL: object) -> None:
            background.check()
            ranks.check()

        size = 0
        for stretch in own:
            parts = []
            for start, stop in stretch.batches(settings.batch_size):
                if work.device.startswith("cuda") and stop - start != size:
                    # A batch of another size captures new graphs, during which no other thread may use the device.
                    background.settle()
                size = stop - start
                indices = np.arange(start, stop)
                labels_B = torch.from_numpy(labels_M[indices])
                tokens_BL = generate(
                    model, labels_B, order=order_L, choice=settings, seed=view.seed, indices=indices, on_step=check
                )
                parts.append(tokens_BL.cpu().numpy())
            tokens = np.concatenate(parts)
            for block in stretch.blocks:
                if block in rows:
                    first, end = rows[block]
                    background.put((block, tokens[first - stretch.start : end - stretch.start]))


def _storing(work: Work[SampleView], rows: dict[int, tuple[int, int]], advance: Advance) -> Callable[[Drawn], None]:
    """A function that decodes a block and writes it."""
    view = work.view
    tokenizer = view.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
    labels_M = view.labels_M.astype(np.int32)

    def store(drawn: Drawn) -> None:
        block, tokens_BL = drawn
        start, stop = rows[block]
        images = np.concatenate(list(decoded(tokenizer, tokens_BL, view.grid)))
        work.output.write_block(block, tokens=tokens_BL, labels=labels_M[start:stop], images=images)
        advance(stop - start)

    return store


def _own_stream(device: str) -> Callable[[], Any]:
    """The context of the decoding thread: inference mode, and on CUDA its own stream, so that decoding overlaps generation."""

    @contextmanager
    def around() -> Iterator[None]:
        import torch

        with torch.inference_mode():
            if not device.startswith("cuda"):
                yield
                return
            with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
                yield

    return around


def prepared(model: ImageModel, settings: SampleSettings) -> Decodable:
    """A model from ``sampling_model``, its weights and cache prepared for decoding with these settings."""
    return model.prepare(int8=settings.precision == "int8", float8_cache=settings.kv_cache == "float8")


def sampling_model(source: ModelSource, train: StageOutput | None, device: str) -> ImageModel:
    """The model in eval mode, in the dtype of its precision: from the output of ``train``, or from ``model.weights``.

    Raises:
        WeightsError, IncompleteError: the weights are missing or damaged.
    """
    import torch

    dtype = getattr(torch, MODEL_DTYPES[source.precision])
    if train is not None:
        return trained_model(train, source.model, source.config, source.attention, device).to(dtype)
    assert source.model.weights is not None, "a recipe without [train] names weights"
    attention = source.attention.build()
    return source.model.load(source.model.weights, source.config, attention, device=device, dtype=dtype)


# How the work is divided: into blocks, the chunks of the store, and stretches, the blocks that a batch fills.


@final
@dataclass(frozen=True)
class Stretch:
    """Consecutive blocks; ``start`` and ``stop`` (exclusive) are their rows."""

    start: int
    stop: int
    blocks: range

    def batches(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """First and end row (exclusive) of each batch."""
        for first in range(self.start, self.stop, batch_size):
            yield first, min(first + batch_size, self.stop)


def sample_rows(count: int, row_bytes: int, batch_size: int) -> int:
    """Rows of a chunk of samples: at most 16 MiB of images, and a multiple or a divisor of the batch size."""
    rows = rows_per_block(count, row_bytes)
    if rows >= batch_size:
        return rows - rows % batch_size
    return batch_size // -(-batch_size // rows)


def stretches(count: int, rows: int, batch_size: int) -> list[Stretch]:
    """Divides ``count`` samples in blocks of ``rows`` into stretches of as many blocks as a batch fills, at least one."""
    blocks, together = -(-count // rows), max(1, batch_size // rows)
    starts = range(0, blocks, together)
    return [
        Stretch(first * rows, min((first + together) * rows, count), range(first, min(first + together, blocks)))
        for first in starts
    ]
