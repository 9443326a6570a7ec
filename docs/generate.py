"""Writes docs/parts.md, docs/api.md, and the tables of docs/recipes.md and docs/training.md from the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import rarkit
from rarkit.engine.settings import TrainSettings
from rarkit.estimate.training import TrainEstimate, train_estimate
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.recipe.contradictions import contradictions
from rarkit.registry.component import NotInFingerprint
from rarkit.registry.kind import Kind
from rarkit.registry.kinds import KINDS
from rarkit.runtime.machine import GPUS
from rarkit.sampling.settings import SampleSettings

DOCS = Path(__file__).parent
TABLES: dict[str, type[rarkit.Settings]] = {"train": TrainSettings, "sample": SampleSettings, "evaluate": EvaluateSettings}
"""The tables of a recipe that name no part."""
TABLE = re.compile(r"<!-- settings of \[(\w+)\] -->\n.*?<!-- end -->", re.DOTALL)
COSTS = re.compile(r"<!-- what the recipes take on (\w+) -->\n.*?<!-- end -->", re.DOTALL)
TRAINED, PROCESSES = ("rar_b", "rar_l", "rar_xl", "rar_xxl"), (1, 8, 32)
"""The recipes whose training is estimated, and on how many GPUs."""
INTRODUCTION = """\
# Parts

The parts that come with rarkit, by the recipe table that selects them. `docs/generate.py` generates this page from the classes.
`rarkit plugins list` shows all installed parts, including those of other plugins; [plugins](plugins.md) explains how to write one.
Settings with ° are not in the [fingerprint](store.md), but the content of the data and weights that they choose is.
"""

SMALL = {"hidden_size": 8, "depth": 1, "num_heads": 1}
STILL = {"name": "constant", "ratio": 0.0}
GRIDS = ((4, 4), (16, 16), (7, 7), (6, 8), (1, 32))
"""The grids that the table of scan orders shows."""
MATRIX = """\
Every tokenizer goes with every scan order that supports its grid, and both with every schedule, attention backend and model, but
for what these tables say. `tests/test_matrix.py` plans all combinations of the five, and trains and samples each that works.
"""


def parts_page(parts: rarkit.Parts) -> str:
    """docs/parts.md."""
    families = [line for kind in KINDS.values() for line in family(kind, parts.of_kind(kind.name))]
    return "\n".join([INTRODUCTION, *families, *matrix(parts)])


def recipes_page(page: str) -> str:
    """docs/recipes.md with its tables of settings regenerated between their marks."""

    def table(match: re.Match[str]) -> str:
        rows = "\n".join(settings(TABLES[match[1]])).rstrip()
        return f"<!-- settings of [{match[1]}] -->\n{rows}\n<!-- end -->"

    return TABLE.sub(table, page)


def training_page(page: str) -> str:
    """docs/training.md with its table of what training takes regenerated between its marks."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- what the recipes take on {match[1]} -->\n{chr(10).join(training_costs(match[1]))}\n<!-- end -->"

    return COSTS.sub(table, page)


def training_costs(gpu: str) -> Iterator[str]:
    """A row for each recipe and number of GPUs of this kind."""
    yield "| recipe | GPUs | a step | all steps | GPU-hours | passes of a GPU | its memory | passes (`fsdp`) | memory (`fsdp`) |"
    yield "|---" + "|--:" * 8 + "|"
    for name in TRAINED:
        recipe = rarkit.load_recipe(str(DOCS.parent / f"recipes/{name}.toml"))
        sharded = recipe.replace({"train.data_parallel": "fsdp"})
        for processes in PROCESSES:
            copied, shared = (estimated(each, gpu, processes) for each in (recipe, sharded))
            days = copied.steps * copied.step_seconds / 86400
            columns = [f"`{name}`", str(processes), f"{copied.step_seconds:.2f} s", f"{days:.1f} days", f"{copied.gpu_hours:,.0f}"]
            columns += division(copied) + (division(shared) if processes > 1 else ["–", "–"])
            yield cells(*columns)


def estimated(recipe: rarkit.Recipe, gpu: str, processes: int) -> TrainEstimate:
    experiment = rarkit.plan(recipe, "memory://costs").experiment
    assert experiment is not None, recipe
    estimate = train_estimate(experiment, GPUS[gpu], processes)
    assert estimate is not None, recipe
    assert estimate.fits, f"{recipe} does not fit a {gpu}"
    return estimate


def division(train: TrainEstimate) -> list[str]:
    """The passes of a process, and its memory."""
    return [f"{train.accumulation} × {train.micro_batch} images", f"{train.memory.total / 1e9:.1f} GB"]


def family(kind: Kind, parts: rarkit.Registry[Any]) -> Iterator[str]:
    """The section of one kind: its built-in parts."""
    yield f"## {kind.title}\n"
    where = f"if `{kind.default_with}` is given and no `name`" if kind.default_with else "unless `name` is given"
    default = f"; `{kind.default}` {where}" if kind.default else ""
    yield f"{kind.about[0].upper()}{kind.about[1:]}. Chosen by `{kind.header} name = …`{default}.\n"
    for name, part in parts.items():
        if parts.source(name).plugin == "builtin":
            yield f"### {name}\n"
            yield f"`{part.__name__}`. {text(part)}\n"
            yield from settings(part)


def matrix(parts: rarkit.Parts) -> Iterator[str]:
    """The section on what goes with what."""
    yield "## What goes with what\n"
    yield MATRIX
    models = list(built_in(parts, "models"))
    yield from ("| | " + " | ".join(f"`{name}`" for name in models) + " |", "|---" * (len(models) + 1) + "|")
    for kind, table in (("permutation_schedules", "permutation_schedule"), ("attention_backends", "attention")):
        for name in built_in(parts, kind):
            yield f"| `{name}` | {' | '.join(goes(**{table: name, 'model': model}) for model in models)} |"
    yield "\nScan orders, by height × width of the token grid:\n"
    yield from ("| | " + " | ".join(f"{height} × {width}" for height, width in GRIDS) + " |", "|---" * (len(GRIDS) + 1) + "|")
    for name, order in built_in(parts, "scan_orders").items():
        fits = ("✓" if order().requirement(*grid) is None else "–" for grid in GRIDS)
        yield f"| `{name}` | {' | '.join(fits)} |"
    yield ""


def built_in(parts: rarkit.Parts, kind: str) -> dict[str, Any]:
    registry = parts.of_kind(kind)
    return {name: part for name, part in registry.items() if registry.source(name).plugin == "builtin"}


def goes(model: str, **tables: Any) -> str:
    """Whether a part goes with a model: ✓, or ✓ with the setting that it takes."""
    if why_not(model={"name": model, **SMALL}, **tables) is None:
        return "✓"
    if why_not(model={"name": model, **SMALL, "attention_dropout": 0.0}, **tables) is None:
        return "✓ with `attention_dropout = 0`"
    [(table, name)] = tables.items()
    if table == "permutation_schedule" and name == "constant" and why_not(model={"name": model, **SMALL}, **{table: STILL}) is None:
        return "✓ with `ratio = 0`"
    return "–"


def why_not(**tables: Any) -> str | None:
    """What planning says against a recipe of these parts, or None."""
    data = {"name": "generated", "height": 4, "width": 4, "channels": 1}
    try:
        recipe = rarkit.make_recipe(**({"dataset": data, "tokenizer": "pixel", "train": {"steps": 4, "batch_size": 2}} | tables))
        plan = rarkit.plan(recipe, "memory://matrix")
    except rarkit.RarkitError as error:
        return str(error)
    return str(plan.obstacle) if plan.obstacle is not None else "; ".join(contradictions(recipe).values()) or None


def settings(part: type[rarkit.Settings]) -> Iterator[str]:
    """A table of a part's fields, including nested settings."""
    schema = part.model_json_schema()
    marks = {name: field.metadata for name, field in part.model_fields.items()}
    outside = {name for name, found in marks.items() if any(isinstance(mark, NotInFingerprint) for mark in found)}
    rows = list(fields(schema, schema.get("$defs", {}), outside))
    if rows:
        yield from ("| key | value | default | meaning |", "|---|---|---|---|", *rows, "")


def fields(schema: dict[str, Any], definitions: dict[str, Any], outside: Set[str] = frozenset(), prefix: str = "") -> Iterator[str]:
    """One row for each field, those ``outside`` fingerprints marked; a nested table's fields follow it under dotted names."""
    for key, field in schema.get("properties", {}).items():
        if key == "name":
            continue
        default = "required" if key in schema.get("required", []) else f"`{toml(field.get('default'))}`"
        if field.get("default", "") is None:
            default = "–"
        meaning = " ".join(str(field.get("description", "")).split())
        mark = " °" if key in outside else ""
        yield cells(f"`{prefix}{key}`{mark}", value(field, definitions), default, meaning)
        for option in (field, *field.get("anyOf", [])):
            if "$ref" in option:
                yield from fields(definitions[option["$ref"].rsplit("/", 1)[-1]], definitions, prefix=f"{prefix}{key}.")


def value(field: dict[str, Any], definitions: dict[str, Any]) -> str:
    """The allowed values, in words."""
    if "anyOf" in field:
        options = [value(option, definitions) for option in field["anyOf"] if option.get("type") != "null"]
        return " or ".join(options)
    if "$ref" in field or "oneOf" in field:
        return "a table"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{toml(option)}`" for option in field.get("enum", [field.get("const")]))
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([words.get(field.get("type", ""), "value"), ", ".join(limits)]).strip()


def toml(default: Any) -> str:
    """A default as a recipe would write it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, list):
        return f"[{', '.join(toml(item) for item in default)}]"
    if isinstance(default, dict):
        # For a part with many settings the name is enough; its own section has the rest.
        shown = default if len(default) <= 3 or "name" not in default else {"name": default["name"]}
        return f"{{ {', '.join(f'{key} = {toml(item)}' for key, item in shown.items())} }}"
    return str(default)


def text(documented: object) -> str:
    """A docstring as Markdown: its paragraphs, with single backticks."""
    return inspect.cleandoc(documented.__doc__ or "").replace("``", "`")


def cells(*columns: str) -> str:
    """A row of a table."""
    return f"| {' | '.join(column.replace('``', '`').replace('|', chr(92) + '|') for column in columns)} |"


if __name__ == "__main__":
    from stable_api import api_page

    (DOCS / "api.md").write_text(api_page())
    (DOCS / "parts.md").write_text(parts_page(rarkit.parts()))
    for name, page in (("recipes.md", recipes_page), ("training.md", training_page)):
        (DOCS / name).write_text(page((DOCS / name).read_text()))
