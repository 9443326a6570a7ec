"""The model card of the folder, README.md."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from typing import Any

import tomli_w

from rarkit.evaluation.record import MetricRecord
from rarkit.inference.to_transformers.source import Exported
from rarkit.printable import printable
from rarkit.recipe.text import to_toml
from rarkit.sampling.guidance import Constant

_CARD = """---
library_name: transformers
pipeline_tag: unconditional-image-generation
tags: [autoregressive, image-generation, rarkit, custom_code]
---
# {title}

A class-conditional autoregressive model of images, as a causal language model over {length} codes of an image (a grid of
{height} × {width}, {codes} codes, {classes} classes), along the scan order `{order}`. Exported by rarkit; its model family is
`{family}`.

```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("{place}", trust_remote_code=True)
ids = model.generate(model.prompt({labels}), logits_processor=model.guidance())
codes = model.grids(ids)   # (images, {height}, {width}), raster order
{images}
```

- **Ids.** 0 … {last_code} are the codes.{cls} The classes are {first_class} … {last_class}: `model.prompt(labels)` makes prompts
  of class numbers 0 … {last_label}, whose names are in `config.id2label`. {no_class} is "no class". Logits are over the
  {codes} codes only.
- **Length.** A sequence has {sequence} ids: {prefix}, and then the codes. There is no end token and no padding; generation stops
  by length.
- **Defaults.** `generation_config.json` has the settings of the recipe. `do_sample=False` decodes greedily.
- **Guidance.** `model.guidance()` is the recipe's{guidance}. `model.guidance(scale=4.0)` is constant,
  `model.guidance(scale=4.0, power=1.5)` the power-cosine schedule. Without a logits processor there is none.
- **Back to rarkit.** {back}

## Numbers

{numbers}

## Recipe

```toml
{recipe}```

## Licence

The Python files come from rarkit (Apache License 2.0). The licence of the weights is for those who publish them to state, by the
terms of the data that they were trained on and of any weights that they started from.
"""


def model_card(exported: Exported, prompt_length: int, vocabulary_size: int, place: str) -> str:
    """The text of the card; ``place`` is the folder as its user names it."""
    experiment = exported.experiment
    recipe, config, (height, width) = experiment.recipe, experiment.config, experiment.grid
    classes = config.num_classes
    first_class = vocabulary_size - 1 - classes
    guidance = exported.settings.guidance
    return _CARD.format(
        title=printable(recipe.title or recipe.recipe_name),
        length=config.seq_len,
        height=height,
        width=width,
        codes=config.codebook_size,
        classes=classes,
        order=recipe.scan_order.name,
        family=recipe.model.name,
        place=place,
        labels=[0, min(1, classes - 1)],
        images="images = model.images(ids) # uint8 (images, height, width, channels)"
        if exported.decoder
        else "# The folder has no decoder of images: decode the codes with the tokenizer.",
        last_code=config.codebook_size - 1,
        cls=f" {config.codebook_size} is cls, which starts every sequence." if prompt_length == 2 else "",
        first_class=first_class,
        last_class=first_class + classes - 1,
        last_label=classes - 1,
        no_class=vocabulary_size - 1,
        sequence=prompt_length + config.seq_len,
        prefix="cls and the class" if prompt_length == 2 else "the class",
        guidance=", none" if guidance == Constant() else f": `{guidance.model_dump_json()}`",
        back=f'`rarkit.models.load_rar("{place}")` reads the same weights.'
        if recipe.model.name == "rar"
        else f'A recipe samples from it with `model.weights = "{place}/model.safetensors"`.',
        numbers=_numbers(exported.metrics),
        recipe=tomli_w.dumps(_without_folders(tomllib.loads(to_toml(recipe)))),
    )


def _numbers(metrics: Sequence[MetricRecord]) -> str:
    if not metrics:
        return "Not measured."
    rows = ["| metric | value | 90 % interval | yardsticks |", "|---|---|---|---|"]
    for metric in metrics:
        interval = "–" if metric.low is None or metric.high is None else f"{metric.low:.4g} … {metric.high:.4g}"
        beside = ", ".join(f"{name} {value:.4g}" for name, value in metric.yardsticks.items()) or "–"
        rows.append(f"| {metric.name} | {metric.value:.4g} {metric.unit} | {interval} | {beside} |")
    return "\n".join(rows)


def _without_folders(value: Any) -> Any:
    """A recipe's tables with the names of files only: whose folders they lie in is nobody's business."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    return os.path.basename(value) if isinstance(value, str) and os.path.isabs(value) else value
