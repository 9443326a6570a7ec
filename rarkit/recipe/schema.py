"""The recipe: a pydantic model, assembled from the parts that are installed."""

from __future__ import annotations

from abc import ABC
from functools import reduce
from operator import or_
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr, SerializeAsAny, create_model, model_validator

from rarkit.attention.base import AttentionBackend
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.base import Dataset
from rarkit.errors import RecipeError
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.models.base import ModelFamily
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.registry.component import Component, Settings
from rarkit.registry.kinds import KINDS, TABLES, Parts
from rarkit.registry.registry import Registry
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.scan_orders.raster import Raster
from rarkit.tokenizers.base import Tokenizer
from rarkit.training.settings import TrainSettings


class Recipe(Settings, ABC):
    """A whole experiment: data, parts, model, training, sampling, evaluation."""

    title: str
    """What this is, in a line."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Everything random is a function of it."""
    dataset: SerializeAsAny[Dataset]
    """Where images come from."""
    tokenizer: SerializeAsAny[Tokenizer]
    """Images to grids of codes, and back."""
    scan_order: SerializeAsAny[ScanOrder] = Raster()
    """In which order the grid is visited when nothing is random."""
    permutation_schedule: SerializeAsAny[PermutationSchedule] | None = None
    """How the share of random permutations falls over training; the model family's own unless given (of ``rar``: ``linear``)."""
    attention: SerializeAsAny[AttentionBackend] = SDPA()
    """The attention kernel."""
    model: SerializeAsAny[ModelFamily]
    """How tokens become logits; ``rar`` unless ``name`` says otherwise."""
    train: TrainSettings | None = None
    """Training; left out where ``model.weights`` names a checkpoint."""
    sample: SampleSettings | None = None
    """Sampling; without this table no samples are drawn."""
    evaluate: EvaluateSettings | None = None
    """Evaluation of the samples; without this table there is none."""

    _recipe_name: str = PrivateAttr(default="recipe")
    _command: str = PrivateAttr(default="")
    _is_rehearsal: bool = PrivateAttr(default=False)

    @property
    def recipe_name(self) -> str:
        """The file's name without its ending: results lie in ``runs/<recipe_name>/``."""
        return self._recipe_name

    @property
    def command(self) -> str:
        """What to type to run it again; empty for a recipe that came from no file."""
        return self._command

    @property
    def is_rehearsal(self) -> bool:
        """Whether this is a recipe made small, whose numbers mean nothing."""
        return self._is_rehearsal

    def named(self, name: str, command: str = "", *, rehearsal: bool = False) -> Self:
        """The same recipe under another name."""
        copy = self.model_copy()
        copy._recipe_name, copy._command, copy._is_rehearsal = name, command, rehearsal
        return copy

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train is None and self.model.weights is None:
            raise ValueError("a model has to come from somewhere: add a [train] table, or model.weights")
        if self.train is not None and self.model.weights is not None:
            raise ValueError("model.weights takes the place of training: leave out the [train] table or model.weights")
        if self.evaluate is not None and self.sample is None:
            raise ValueError("[evaluate] compares samples: add a [sample] table (it may be empty)")
        if self.sample is not None and self.sample.classes is not None and len(set(self.sample.classes)) < len(self.sample.classes):
            raise ValueError("sample.classes names a class twice: per_class says how many images of each")
        if self.permutation_schedule is not None:
            try:
                self.model.check_schedule(self.permutation_schedule)
            except RecipeError as error:
                raise ValueError(str(error)) from error
        return self

    @model_validator(mode="before")
    @classmethod
    def _name_defaults(cls, tables: Any) -> Any:
        return with_default_names(tables)


def with_default_names(tables: Any) -> Any:
    """The same tables, in which a part that has a default name is named: ``[model]`` without ``name`` is a ``rar``."""
    if not isinstance(tables, dict):
        return tables
    named = dict(tables)
    for kind in TABLES.values():
        table = named.get(kind.table)
        if kind.default is not None and isinstance(table, dict) and "name" not in table:
            named[kind.table] = {"name": kind.default, **table}
    return named


def recipe_model(parts: Parts) -> type[Recipe]:
    """The recipe's model with each part table as a union of what is installed, discriminated by ``name``."""
    evaluate = create_model(
        "EvaluateSettings",
        __base__=EvaluateSettings,
        __doc__=EvaluateSettings.__doc__,
        features=_field(EvaluateSettings, "features", parts.feature_extractors),
    )
    tables: dict[str, Any] = {
        kind.table: _field(Recipe, kind.table, parts.of_kind(kind.name)) for kind in KINDS.values() if "." not in kind.table
    }
    evaluate_field = Recipe.model_fields["evaluate"]
    tables["evaluate"] = (evaluate | None, Field(default=None, description=evaluate_field.description))
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **tables)


def _field(base: type[Settings], name: str, registry: Registry[Any]) -> tuple[Any, Any]:
    """The annotation and field of a part table; its default stays the base's."""
    base_field = base.model_fields[name]
    classes: list[type[Component]] = list(registry.values())
    default = ... if base_field.is_required() else base_field.default
    field = Field(default=default, description=base_field.description)
    annotation: Any = classes[0]
    if len(classes) > 1:
        annotation = Annotated[reduce(or_, classes), Field(discriminator="name")]
    return (annotation | None if base_field.default is None and not base_field.is_required() else annotation), field
