"""``rarkit new``: looks at images, proposes a recipe for them, and writes it."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import final

from rarkit.errors import DatasetError, RarkitWarning, UserError
from rarkit.files.atomic import write_once, write_text
from rarkit.files.writable import check_writable, writing
from rarkit.proposal.budget import Budget
from rarkit.proposal.found import sentences_on
from rarkit.proposal.places import is_on_hub, layout_of
from rarkit.proposal.proposal import Proposal, Proposer, has_learned_tokenizer
from rarkit.proposal.recipe_text import recipe_text
from rarkit.proposal.survey import Survey, survey
from rarkit.proposal.timing import Clock, TokenizerClock, measured_here, measured_tokenizer
from rarkit.recipe.folder_names import folder_name_of
from rarkit.recipe.load import load_recipe
from rarkit.runtime.progress import Reporter


@final
@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was proposed, and what it was proposed for."""

    path: Path
    text: str
    survey: Survey
    proposal: Proposal

    def found(self) -> list[str]:
        """Sentences on the images."""
        return sentences_on(self.survey)


def new_recipe(
    place: str,
    path: str | None = None,
    *,
    minutes: float = 10.0,
    reporter: Reporter | None = None,
    clock: Clock | None = None,
    tokenizer_clock: TokenizerClock | None = None,
) -> NewRecipe:
    """Looks at images, and proposes a recipe.

    Args:
        place: a path or any fsspec URL of images, as of ``layout_of``.
        path: where the recipe will be; None for the current folder, under the name of the place.
        minutes: how long a run of it may take on this machine.
        reporter: for progress.
        clock: says how long a training takes; None to measure it here.
        tokenizer_clock: likewise, a tokenizer's.

    Raises:
        DatasetError: there are no images, or nothing can be learned of them.
    """
    reporter = reporter or Reporter(quiet=True)
    with warnings.catch_warnings():
        # What datasets warn of (images held out, files passed over) is among what is found, and said there.
        warnings.simplefilter("ignore", RarkitWarning)
        seen = _surveyed(place, reporter)
    budget = Budget.here(minutes, seen.count, seen.seconds, learned=has_learned_tokenizer())
    target = target_of(place, path)
    reporter.say("choosing sizes, and timing a few steps of training here")
    title = f"{_name_of(place)}: {seen.count:,} images"
    proposal = Proposer(seen, budget, clock or measured_here, tokenizer_clock or measured_tokenizer).propose(title)
    head = [
        f"Written by rarkit new for {place}, to run within about {minutes:g} {'minute' if minutes == 1 else 'minutes'} on the "
        "machine it was written on.",
        *sentences_on(seen),
        *proposal.remarks,
    ]
    return NewRecipe(target, recipe_text(proposal, head, target.parent), seen, proposal)


def _surveyed(place: str, reporter: Reporter) -> Survey:
    try:
        return survey(layout_of(place), reporter)
    except DatasetError as error:
        if not is_on_hub(place):
            raise
        raise DatasetError(f"there is no file or folder {place} here, and on the Hugging Face hub: {error}") from error


def check_target(path: Path, *, force: bool) -> None:
    """Refuses a place where no recipe can be written, or where one is that is not to be written over.

    Raises:
        UserError: there is a file, and ``force`` is not set; or the name does not end in .toml.
        StoreError: nothing can be written there.
    """
    if path.suffix.lower() != ".toml":
        example = path / "recipe.toml" if path.is_dir() else f"{path}.toml"
        raise UserError(f"-o {path}: a recipe is a file, whose name ends in .toml. Write -o {example}, say.")
    if os.path.lexists(path) and not force:
        raise _taken(path)
    check_writable(str(path), (".toml",), folder=False)


def write_recipe(recipe: NewRecipe, *, force: bool = False) -> None:
    """Writes the recipe, and reads it once more as ``rarkit run`` will.

    Raises:
        UserError: there is a file of that name, and ``force`` is not set.
        StoreError: it cannot be written.
    """
    with writing(str(recipe.path)):
        if force:
            write_text(recipe.path, recipe.text)
        elif not write_once(recipe.path, recipe.text):
            raise _taken(recipe.path)
    load_recipe(recipe.path)


def _taken(path: Path) -> UserError:
    cure = "Name another file with -o, or write over it with --force."
    return UserError(f"{path} is there already, and is left as it is. {cure}")


def target_of(place: str, path: str | None) -> Path:
    """Where the recipe for a place will be."""
    return Path(path) if path is not None else Path(f"{_name_of(place)}.toml")


def _name_of(place: str) -> str:
    """A name for the recipe, after the last part of a path or URL."""
    whole = place.partition("::")[2] or place if place.startswith("zip://") else place.partition("::")[0]
    local = whole if "://" in whole else os.path.abspath(whole)
    last = re.sub(r"[^\w.-]+", "_", local.rstrip("/").rsplit("/", 1)[-1]).strip("._")
    stem = re.sub(r"(\.(csv|tsv|jsonl|ndjson|tar|gz|tgz|npz|zip|parquet))+$", "", last, flags=re.IGNORECASE)
    return folder_name_of(stem)
