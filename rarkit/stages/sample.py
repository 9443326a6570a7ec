"""sample: tokens drawn from the model along the scan order, decoded to images.

Shape letters: M samples, L tokens of an image, H, W, C image height, width, channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.errors import RecipeError
from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, model_grid, read_state
from rarkit.stages.tokenize import decoded, token_dtype
from rarkit.stages.train import rar_config, trained_model

if TYPE_CHECKING:
    from rarkit.models.transformer import OrderedTransformer

BLOCK_ROWS = 256


@final
class Sample(Stage):
    """Model → ``tokens`` (M, L) in raster order, ``labels`` (M,), ``images`` (M, H, W, C)."""

    name = "sample"

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

        from rarkit.sampling.generation import generate

        recipe, output = work.recipe, work.output
        assert recipe.sample is not None
        settings, info, grid = recipe.sample, recipe.dataset.info(), model_grid(recipe)
        labels_M = sample_labels(recipe)
        count = len(labels_M)
        model = sampling_model(work)
        tokenizer = recipe.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
        output.create("tokens", (count, grid[0] * grid[1]), token_dtype(recipe.tokenizer.codebook_size()), BLOCK_ROWS)
        output.create("labels", (count,), np.int32, BLOCK_ROWS)
        output.create("images", (count, info.height, info.width, info.channels), np.uint8, BLOCK_ROWS)
        missing = output.missing_blocks(["tokens", "labels", "images"])
        order = torch.from_numpy(recipe.scan_order.order(*grid))
        todo = sum(stop - start for start, stop in (output.block_rows("tokens", block) for block in missing))
        with work.reporter.task("sample", count, "images", count - todo) as advance, torch.inference_mode():
            for block in missing:
                start, stop = output.block_rows("tokens", block)
                parts = []
                for first in range(start, stop, settings.batch_size):
                    indices = np.arange(first, min(first + settings.batch_size, stop))
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
                    )
                    parts.append(tokens_BL.cpu().numpy())
                    advance(len(indices))
                tokens = np.concatenate(parts)
                images = np.concatenate(list(decoded(tokenizer, tokens, grid)))
                output.write_block(block, tokens=tokens, labels=labels_M[start:stop].astype(np.int32), images=images)
        output.finish()


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


def sampling_model(work: Work) -> OrderedTransformer:
    """The trained model, or the one whose weights the recipe names, in the precision that sampling asks for."""
    import torch

    recipe = work.recipe
    assert recipe.sample is not None
    dtype = getattr(torch, recipe.sample.precision)
    if recipe.train is not None:
        return trained_model(work.inputs["train"], recipe, work.device).to(dtype)
    from rarkit.models.checkpoints import load_rar

    assert recipe.model.weights is not None
    return load_rar(recipe.model.weights, rar_config(recipe), device=work.device, dtype=dtype).eval()
