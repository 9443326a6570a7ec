"""sample: tokens drawn from the model along the scan order, decoded to images.

A background thread decodes and stores while the next batch is generated; ranks take turns at stretches of chunks.

Shape letters: M samples, B batch, L tokens of an image, H, W, C image height, width, channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import RecipeError
from rarkit.recipe.schema import Recipe
from rarkit.models.rar.sampling_costs import MODEL_DTYPES
from rarkit.runtime.background import Background
from rarkit.stages.base import Stage, Work, model_grid, read_state
from rarkit.runtime.progress import Advance
from rarkit.stages.stretches import Stretch, sample_rows, stretches
from rarkit.stages.tokenize import decoded, token_dtype
from rarkit.stages.train import rar_config, trained_model

if TYPE_CHECKING:
    from rarkit.models.rar.transformer import OrderedTransformer
    from rarkit.recipe.sections import SampleSettings
    from rarkit.models.rar.decoding.prepared import Prepared

ARRAYS = ("tokens", "labels", "images")
Drawn = tuple[int, NDArray[np.int64]]
"""A block and its tokens (B, L) in raster order."""


@final
class Sample(Stage):
    """Model → ``tokens`` (M, L) in raster order, ``labels`` (M,), ``images`` (M, H, W, C)."""

    name = "sample"
    is_shared = True

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.sample is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        return (*(("fit",) if recipe.tokenizer.learns else ()), *(("train",) if recipe.train is not None else ()))

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.sample is not None
        identity = {"seed": recipe.seed, "sample": recipe.sample.identity(), "scan_order": recipe.scan_order.identity()}
        if recipe.train is None:
            identity["model"] = recipe.model.identity()
            identity["attention"] = recipe.attention.identity()
            identity["tokenizer"] = recipe.tokenizer.identity()
            # Of the data only the shape counts, so that released weights can be sampled without it.
            info = recipe.dataset.info()
            identity["images"] = [info.height, info.width, info.channels, info.num_classes]
        return identity

    def run(self, work: Work) -> None:
        import torch

        recipe, output, ranks = work.recipe, work.output, work.ranks
        assert recipe.sample is not None
        batch_size = recipe.sample.batch_size
        if ranks.first:
            _create(work)
        missing = set(ranks.told(lambda: output.missing_blocks(ARRAYS)))
        ranks.check_sees(output)
        layout = output.layout("images")
        todo = [one for one in stretches(layout.shape[0], layout.rows, batch_size) if missing & set(one.blocks)]
        own = todo[ranks.rank :: ranks.size]
        rows = {block: layout.block_rows(block) for stretch in own for block in stretch.blocks if block in missing}
        share = sum(stop - start for start, stop in rows.values())
        alone = "sample", layout.shape[0], "images", layout.shape[0] - share
        shared = f"sample, rank {ranks.rank} of {ranks.size}", share, "images"
        with work.reporter.task(*(alone if ranks.size == 1 else shared)) as advance, torch.inference_mode():
            _draw(work, own, rows, advance)
        ranks.meet()
        if ranks.first:
            output.finish()


def _create(work: Work) -> None:
    """Declares the arrays. What an earlier run began keeps its chunks, even if this one would cut them otherwise."""
    recipe, output = work.recipe, work.output
    assert recipe.sample is not None
    info, grid, count = recipe.dataset.info(), model_grid(recipe), len(sample_labels(recipe))
    begun = output.record()["arrays"].get("tokens")
    image = (info.height, info.width, info.channels)
    rows = begun["rows"] if begun else sample_rows(count, math.prod(image), recipe.sample.batch_size)
    output.create("tokens", (count, grid[0] * grid[1]), token_dtype(recipe.tokenizer.codebook_size()), rows)
    output.create("labels", (count,), np.int32, rows)
    output.create("images", (count, *image), np.uint8, rows)


def _draw(work: Work, own: list[Stretch], rows: dict[int, tuple[int, int]], advance: Advance) -> None:
    """Generates stretches, and has those of their blocks that are in ``rows`` decoded and stored behind."""
    import torch

    from rarkit.sampling import generate

    recipe, ranks = work.recipe, work.ranks
    assert recipe.sample is not None
    settings, labels_M = recipe.sample, sample_labels(recipe)
    order = torch.from_numpy(recipe.scan_order.order(*model_grid(recipe)))
    model = prepared(sampling_model(work), settings)
    # One batch may wait while another is decoded and a third is generated.
    waiting = max((len(stretch.blocks) for stretch in own), default=1)
    with Background(_storing(work, rows, advance), waiting=waiting, around=_own_stream(work.device)) as behind:

        def heed(step: int, tokens_BL: object) -> None:
            behind.check()
            ranks.check()

        size = 0
        for stretch in own:
            parts = []
            for start, stop in stretch.batches(settings.batch_size):
                if work.device.startswith("cuda") and stop - start != size:
                    # A batch of another size captures graphs anew, during which no other thread may use the device.
                    behind.settle()
                size = stop - start
                indices = np.arange(start, stop)
                tokens_BL = generate(
                    model,
                    torch.from_numpy(labels_M[indices]),
                    order=order,
                    guidance=settings.guidance,
                    temperature=settings.temperature,
                    top_k=settings.top_k,
                    top_p=settings.top_p,
                    seed=recipe.seed,
                    indices=indices,
                    on_step=heed,
                )
                parts.append(tokens_BL.cpu().numpy())
            tokens = np.concatenate(parts)
            for block in stretch.blocks:
                if block in rows:
                    first, end = rows[block]
                    behind.put((block, tokens[first - stretch.start : end - stretch.start]))


def _storing(work: Work, rows: dict[int, tuple[int, int]], advance: Advance) -> Callable[[Drawn], None]:
    """What decodes a block and writes it."""
    recipe, grid = work.recipe, model_grid(work.recipe)
    tokenizer = recipe.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
    labels_M = sample_labels(recipe).astype(np.int32)

    def store(drawn: Drawn) -> None:
        block, tokens_BL = drawn
        start, stop = rows[block]
        images = np.concatenate(list(decoded(tokenizer, tokens_BL, grid)))
        work.output.write_block(block, tokens=tokens_BL, labels=labels_M[start:stop], images=images)
        advance(stop - start)

    return store


def _own_stream(device: str) -> Callable[[], Any]:
    """The settings of the thread that decodes: no gradients, and on CUDA a stream of its own beside that of generation."""

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


def sample_labels(recipe: Recipe) -> NDArray[np.int64]:
    """The class asked for of each sample, (M,): ``per_class`` of the first class, then of the next, …

    Raises:
        RecipeError: a class that the dataset does not have.
    """
    assert recipe.sample is not None
    known = recipe.dataset.info().num_classes
    classes = range(known) if recipe.sample.classes is None else recipe.sample.classes
    unknown = [label for label in classes if label >= known]
    if unknown:
        raise RecipeError(
            f"sample.classes: there is no class {unknown[0]}; dataset {recipe.dataset.name!r} has classes 0 to {known - 1}"
        )
    return np.repeat(np.array(classes, dtype=np.int64), recipe.sample.per_class)


def prepared(model: OrderedTransformer, settings: SampleSettings) -> Prepared:
    """A model of ``sampling_model`` laid out for decoding as the settings ask."""
    from rarkit.sampling import prepare

    return prepare(model, int8=settings.precision == "int8", float8_cache=settings.kv_cache == "float8")


def sampling_model(work: Work) -> OrderedTransformer:
    """The trained model, or the one whose weights the recipe names, in the type that sampling's precision asks for."""
    import torch

    recipe = work.recipe
    assert recipe.sample is not None
    dtype = getattr(torch, MODEL_DTYPES[recipe.sample.precision])
    if recipe.train is not None:
        return trained_model(work.inputs["train"], recipe, work.device).to(dtype)
    from rarkit.models.rar.checkpoints import load_rar

    assert recipe.model.weights is not None
    return load_rar(recipe.model.weights, rar_config(recipe), device=work.device, dtype=dtype).eval()
