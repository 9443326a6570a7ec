"""``rarkit new``: from somebody's images to a recipe that runs."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import AsJson, Quiet, flag, print_json
from rarkit.cli.units import duration

if TYPE_CHECKING:
    from rarkit.proposal.new_recipe import NewRecipe


def new(
    place: Annotated[
        str,
        typer.Argument(metavar="IMAGES", help="Folder, list (.csv, .jsonl), tar shards, .npz, .zip, .parquet; path, URL or hub."),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the recipe here; else to ./NAME.toml, odd characters as _."),
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", metavar="M", min=0.5, max=1e5, help="How long a run may take on this machine.")
    ] = 10.0,
    show: Annotated[
        str | None, typer.Option("--show", metavar="FILE", help="Draw some images as a model will see them (.png).")
    ] = None,
    force: Annotated[bool, flag("--force", help="Write over a recipe that is there.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Look at images, and write a commented recipe for them that runs."""
    from rarkit.proposal.contact_sheet import check_sheet, write_sheet
    from rarkit.proposal.new_recipe import check_target, new_recipe, target_of, write_recipe
    from rarkit.runtime.progress import Reporter

    check_target(target_of(place, output), force=force)
    if show is not None:
        check_sheet(show)
    recipe = new_recipe(place, output, minutes=minutes, reporter=Reporter(quiet=quiet))
    write_recipe(recipe, force=force)
    if show is not None:
        write_sheet(recipe.survey, recipe.proposal, show)
    print_json(_as_json(recipe, show)) if as_json else _print(recipe, show)


def _print(recipe: NewRecipe, show: str | None) -> None:
    from rarkit.proposal.recipe_text import value_text

    echo("Found:")
    for sentence in recipe.found():
        echo(f"  {sentence}")
    echo("Chosen:")
    for name, choices in recipe.proposal.tables.items():
        for choice in choices:
            why = f" ({choice.why})" if choice.why else ""
            echo(f"  {name}.{choice.key} = {value_text(choice.value)}{why}")
    for remark in recipe.proposal.remarks:
        echo(f"  {remark}")
    seconds = recipe.proposal.seconds
    echo(
        f"Time: about {duration(sum(seconds.values()))} here: {', '.join(f'{what} {duration(s)}' for what, s in seconds.items())}."
    )
    echo(f"wrote {recipe.path}")
    if show is not None:
        echo(f"wrote {show}")
    echo(f"Next: {shlex.join(['rarkit', 'run', str(recipe.path)])}")


def _as_json(recipe: NewRecipe, show: str | None) -> dict[str, Any]:
    survey, proposal = recipe.survey, recipe.proposal
    classes = None if survey.classes is None else dict(survey.classes)
    return {
        "recipe": str(recipe.path),
        "picture": show,
        "found": recipe.found(),
        "images": survey.images,
        "classes": classes if classes is not None else dict.fromkeys(survey.class_names),
        "looked_at": len(survey.looks),
        "damaged": {look.name: look.fault for look in survey.damaged},
        "tables": proposal.as_recipe(),
        "reasons": {
            f"{name}.{choice.key}": choice.why for name, choices in proposal.tables.items() for choice in choices if choice.why
        },
        "remarks": list(proposal.remarks),
        "seconds": proposal.seconds,
    }
