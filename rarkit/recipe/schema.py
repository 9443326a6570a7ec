"""The recipe as a pydantic model, built from the installed parts."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Callable, Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from pydantic import Field, PrivateAttr, SerializeAsAny, ValidationError, create_model, model_validator

from rarkit.attention.base import AttentionBackend
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.base import Dataset
from rarkit.engine.settings import TrainSettings
from rarkit.errors import RecipeError
from rarkit.evaluation.settings import EvaluateSettings
from rarkit.models.base import ModelFamily
from rarkit.permutation_schedules.base import PermutationSchedule
from rarkit.recipe.edits import replaced
from rarkit.recipe.folder_names import folder_name
from rarkit.recipe.mistakes import problems_of, refuse, unknown_parts
from rarkit.recipe.origin import Origin, digest
from rarkit.recipe.sources import PartSource, check_names_known, check_same, sources
from rarkit.recipe.values import as_tables
from rarkit.registry.component import Component, Seed, Settings
from rarkit.registry.exits import exits_are_errors
from rarkit.registry.kinds import KINDS, OBSERVERS, TABLES, Parts
from rarkit.registry.loader import parts as installed_parts
from rarkit.registry.registry import Registry
from rarkit.registry.shown import shown
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.scan_orders.raster import Raster
from rarkit.tokenizers.base import Tokenizer
from rarkit.trackers.base import Tracker

Made = TypeVar("Made", bound=Settings)


class Recipe(Settings, ABC):
    """A whole experiment: data, parts, model, training, sampling, evaluation."""

    title: str
    """One-line description, shown in plans and reports."""
    seed: Seed = 0
    """Seed of everything random: tokenizer, classifier and evaluation, and training and sampling unless they have their own."""
    dataset: SerializeAsAny[Dataset]
    """Source of the images."""
    tokenizer: SerializeAsAny[Tokenizer]
    """Encodes images to grids of codes and decodes them."""
    scan_order: SerializeAsAny[ScanOrder] = Raster()
    """Order of the grid's cells in sequences that are not randomly permuted."""
    permutation_schedule: SerializeAsAny[PermutationSchedule] | None = None
    """Share of random permutations over the course of training. Defaults to the model family's own: ``linear`` for ``rar``."""
    attention: SerializeAsAny[AttentionBackend] = SDPA()
    """Attention kernel."""
    model: SerializeAsAny[ModelFamily]
    """Model that predicts the tokens; a ``rar`` if ``name`` is not given."""
    train: TrainSettings | None = None
    """Training; required unless ``model.weights`` names a checkpoint."""
    sample: SampleSettings | None = None
    """Sampling; without this table no images are sampled."""
    evaluate: EvaluateSettings | None = None
    """Evaluation of the samples; skipped without this table."""
    trackers: tuple[SerializeAsAny[Tracker], ...] = ()
    """Where numbers and pictures of the training are shown while it runs; they decide nothing in any result."""

    _recipe_name: str = PrivateAttr(default="")
    _command: str = PrivateAttr(default="")
    _is_rehearsal: bool = PrivateAttr(default=False)
    _origin: Origin = PrivateAttr(default=Origin())

    def __repr__(self) -> str:
        chosen = (self.dataset, self.tokenizer, self.scan_order, self.model)
        return f"Recipe({self._recipe_name!r}: {', '.join(part.name for part in chosen)})"

    def __str__(self) -> str:
        return repr(self)

    @property
    def recipe_name(self) -> str:
        """The file name without its extension; of a recipe made in Python the names of its dataset and model, ``digits-rar``.

        Results are in ``runs/<recipe_name>/``, or beside it if another recipe has that.
        """
        return self._recipe_name or f"{self.dataset.name}-{self.model.name}"

    @property
    def command(self) -> str:
        """The shell command that runs the recipe; empty for a recipe that was not loaded from a file."""
        return self._command

    @property
    def is_rehearsal(self) -> bool:
        """Whether this is a rehearsal, whose numbers mean nothing."""
        return self._is_rehearsal

    @property
    def origin(self) -> Origin:
        """The file and the overrides from which the recipe was loaded."""
        return self._origin

    @property
    def content_digest(self) -> str:
        """The SHA-256 of all settings that decide anything as they are now, and of the source of registered parts, hexadecimal."""
        settings = self.model_dump(mode="json", exclude=set(OBSERVERS))
        registered = {table: source.sha256 for table, source in sources(self).items()}
        return digest({**settings, "sources": registered} if registered else settings)

    def named(self, name: str, command: str = "", *, rehearsal: bool = False, origin: Origin | None = None) -> Self:
        """The same recipe under another name; a rehearsal, and a recipe with a new ``origin``, count as loaded just now.

        Raises:
            RecipeError: no folder can have the name.
        """
        told = self._origin
        if origin is not None or rehearsal:
            told = dataclasses.replace(origin or told, content=self.content_digest)
        return self._known_as(folder_name(name), command, rehearsal, told)

    def _known_as(self, name: str, command: str, is_rehearsal: bool, origin: Origin) -> Self:
        copy = self.model_copy()
        private = {"_recipe_name": name, "_command": command, "_is_rehearsal": is_rehearsal, "_origin": origin}
        for attribute, value in private.items():
            setattr(copy, attribute, value)  # type checkers take all attributes of settings to be read-only
        return copy

    @exits_are_errors()
    def replace(self, changes: Mapping[str, Any]) -> Recipe:
        """A copy with other values, validated as a whole; the name stays.

        Args:
            changes: values by dotted path: ``{"sample.temperature": 0.9, "scan_order": "spiral", "evaluate": None}``. A value is
                what ``make_recipe`` takes in its place; None is the default, or no table. What replaces a table replaces all of it,
                and so does another part's ``name``. Their order does not matter.

        Raises:
            RecipeError: a path does not exist, or the result is not a valid recipe; the message names up to a dozen mistakes.
        """
        if not isinstance(changes, Mapping):
            raise RecipeError(f'replace: found {shown(changes)}; expected a dictionary, as in {{"train.steps": 100}}')
        tables = as_tables(self)
        replaced(tables, {path: as_tables(value, str(path)) for path, value in changes.items()})
        for key, field in Recipe.model_fields.items():
            # Tables with a default are not optional: None stands for the default.
            if tables.get(key) is None and not field.is_required():
                tables.pop(key, None)
        changed = parse_recipe(tables, installed_parts(), self.recipe_name)
        return changed._known_as(self._recipe_name, "", self._is_rehearsal, self._origin)

    def __reduce__(self) -> tuple[Any, ...]:
        # Its class is made anew in each process, of the parts that are installed there.
        about = self._recipe_name, self._command, self._is_rehearsal, self._origin
        return _unpickled, (as_tables(self), sources(self), *about)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.train is None and self.model.weights is None:
            raise ValueError("there is neither a [train] table nor model.weights: add one of them")
        if self.train is not None and self.model.weights is not None:
            raise ValueError(
                "there are both a [train] table and model.weights, which replaces training: remove one of them (one that comes "
                'from a base by unset = ["train"] or unset = ["model.weights"])'
            )
        if self.evaluate is not None and self.sample is None:
            raise ValueError("[evaluate] needs samples: add a [sample] table (it may be empty)")
        if self.sample is not None and self.sample.classes is not None and len(set(self.sample.classes)) < len(self.sample.classes):
            raise ValueError("sample.classes lists a class twice: list each once, and set per_class for more images of each")
        for kind in KINDS.values():
            names = [part.name for part in getattr(self, kind.table)] if kind.many else []
            if twice := next((name for name in names if names.count(name) > 1), None):
                raise ValueError(f"{kind.header} names {twice!r} twice: name it once")
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
    """The same tables with default names filled in: ``[model]`` without ``name`` becomes a ``rar``."""
    if not isinstance(tables, dict):
        return tables
    return tables | {kind.table: kind.named(tables[kind.table]) for kind in TABLES.values() if kind.table in tables}


def parse_recipe(tables: Mapping[str, Any], parts: Parts, path: str = "recipe", texts: Mapping[str, str] | None = None) -> Recipe:
    """Validates a recipe given as nested dictionaries; ``path`` and ``texts`` (file contents by path) are used in messages only.

    Raises:
        RecipeError: the tables are not a valid recipe; the message names up to a dozen mistakes.
    """
    tables = with_default_names(dict(tables))
    model = _model(parts)
    problems = unknown_parts(tables, parts)
    try:
        recipe = model.model_validate(tables)
    except ValidationError as error:
        problems = {**problems_of(error, model, parts, list(problems)), **problems}
    if problems:
        refuse(problems, tables, path, texts or {})
    return recipe


def _unpickled(
    tables: dict[str, Any], then: dict[str, PartSource], name: str, command: str, is_rehearsal: bool, origin: Origin
) -> Recipe:
    place = f"the recipe {name!r} of another process"
    check_names_known(then, place)
    recipe = parse_recipe(tables, installed_parts(), place)
    check_same(recipe, then, place)
    return recipe._known_as(name, command, is_rehearsal, origin)


class _PickledByContent(EvaluateSettings, ABC):
    """``[evaluate]`` of a recipe; its class is made anew in each process, too."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled_evaluate, (self.model_dump(mode="json"),)


def _unpickled_evaluate(table: dict[str, Any]) -> EvaluateSettings:
    return _evaluate_model(installed_parts()).model_validate(table)


def _once(make: Callable[[Parts], type[Made]]) -> Callable[[Parts], type[Made]]:
    """Makes a model once for the same parts, and keeps it as long as they are kept: other parts may be registered."""
    made: WeakKeyDictionary[Parts, type[Made]] = WeakKeyDictionary()

    def model(parts: Parts) -> type[Made]:
        if parts not in made:
            made[parts] = make(parts)
        return made[parts]

    return model


def recipe_model(parts: Parts) -> type[Recipe]:
    """The recipe model in which each part's table is the union of the installed parts, discriminated by ``name``."""
    evaluate = _evaluate_model(parts)
    tables: dict[str, Any] = {
        kind.table: _field(Recipe, kind.table, parts.of_kind(kind.name)) for kind in KINDS.values() if "." not in kind.table
    }
    evaluate_field = Recipe.model_fields["evaluate"]
    tables["evaluate"] = (evaluate | None, Field(default=None, description=evaluate_field.description))
    return create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **tables)


@_once
def _model(parts: Parts) -> type[Recipe]:
    return recipe_model(parts)


@_once
def _evaluate_model(parts: Parts) -> type[EvaluateSettings]:
    return create_model(
        "EvaluateSettings",
        __base__=_PickledByContent,
        __doc__=EvaluateSettings.__doc__,
        features=_field(EvaluateSettings, "features", parts.feature_extractors),
    )


def _field(base: type[Settings], name: str, registry: Registry[Any]) -> tuple[Any, Any]:
    """Annotation and field of a part's table, or of the list of them, with the default and description of the base."""
    base_field = base.model_fields[name]
    classes: list[type[Component]] = list(registry.values())
    default = ... if base_field.is_required() else base_field.default
    field = Field(default=default, description=base_field.description)
    annotation: Any = classes[0]
    if len(classes) > 1:
        annotation = Annotated[reduce(or_, classes), Field(discriminator="name")]
    if registry.kind.many:
        annotation = tuple[annotation, ...]
    return (annotation | None if base_field.default is None and not base_field.is_required() else annotation), field
