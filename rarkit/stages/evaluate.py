"""evaluate: numbers for the samples, each beside its yardsticks.

Shape letters: N images, M samples, F features, C classes, L tokens of an image.
"""

from __future__ import annotations

import json
from typing import Any, final

from rarkit.recipe.schema import Recipe
from rarkit.stages.base import Stage, Work, read_state
from rarkit.stages.reference import BLOCK_ROWS, features_of

METRICS_FILE = "metrics.json"


@final
class Evaluate(Stage):
    """Samples and reference → ``metrics.json``, and what the extractor sees in the samples."""

    name = "evaluate"

    def wanted(self, recipe: Recipe) -> bool:
        return recipe.evaluate is not None

    def upstream(self, recipe: Recipe) -> tuple[str, ...]:
        assert recipe.evaluate is not None
        if not recipe.evaluate.yardsticks:
            return ("sample", "reference")
        return (*(("train",) if recipe.train is not None else ()), "tokenize", "sample", "reference")

    def identity(self, recipe: Recipe) -> dict[str, Any]:
        assert recipe.evaluate is not None
        return {"seed": recipe.seed, "evaluate": recipe.evaluate.identity()}

    def run(self, work: Work) -> None:
        from rarkit.stages.likeness import feature_metrics
        from rarkit.stages.measures import bits_per_token, reconstruction_metrics

        recipe, output, samples = work.recipe, work.output, work.inputs["sample"]
        assert recipe.evaluate is not None
        extractor = recipe.evaluate.features.build(read_state(work.inputs["reference"]), work.device)
        layout = samples.layout("images")
        blocks = (samples.read_array("images", *samples.block_rows("images", block)) for block in range(layout.blocks))
        with work.reporter.task("evaluate", layout.shape[0], "images") as advance:
            seen = features_of(extractor, blocks, advance)
        for name, values in seen.items():
            output.write_array(name, values, rows=BLOCK_ROWS)
        metrics = feature_metrics(work, seen)
        if recipe.evaluate.yardsticks:
            metrics += [bits_per_token(work), *reconstruction_metrics(work)]
        output.write_file(METRICS_FILE, json.dumps({"metrics": metrics, "samples": layout.shape[0]}, indent=2).encode())
        output.finish([METRICS_FILE])
