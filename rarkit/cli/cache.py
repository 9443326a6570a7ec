"""``rarkit cache``: lists, removes and verifies stage outputs."""

from __future__ import annotations

from typing import Annotated

import typer

from rarkit.cli.encoding import echo
from rarkit.cli.options import DEFAULT_STORE, AsJson, StoreUrl, flag, print_json

cache = typer.Typer(no_args_is_help=True, help="Inspect and clean the store of stage outputs.")
OutputNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STAGE[/FINGERPRINT]]...", help="Outputs by stage or stage/fingerprint; all if none is given."),
]


@cache.command("ls")
def cache_ls(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List stage outputs with recipe, state, size and time."""
    from rarkit.cli import show

    rows = show.outputs(store, names)
    print_json([show.output_as_json(output) for output in rows]) if as_json else show.print_outputs(rows)


@cache.command("rm")
def cache_rm(
    names: Annotated[list[str], typer.Argument(metavar="STAGE[/FINGERPRINT]...", help="Outputs by stage or stage/fingerprint.")],
    store: StoreUrl = DEFAULT_STORE,
    yes: Annotated[bool, flag("--yes", "-y", help="Remove without asking.")] = False,
) -> None:
    """Remove stage outputs from the store."""
    from rarkit.cli import show
    from rarkit.cli.units import size

    for output in show.outputs(store, names):
        if yes or typer.confirm(f"Remove {output.stage}/{output.fingerprint} ({size(output.bytes_used())})?"):
            output.remove()
            echo(f"removed {output.stage}/{output.fingerprint}")


@cache.command("verify")
def cache_verify(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Verify the checksums of stage outputs; exit with 1 if any output is damaged."""
    from rarkit.cli import show

    rows = [(output, show.verified(output)) for output in show.outputs(store, names)]
    if as_json:
        print_json([{"stage": output.stage, "fingerprint": output.fingerprint, "defect": defect} for output, defect in rows])
    else:
        show.print_verified(rows)
    if any(defect is not None for _, defect in rows):
        raise typer.Exit(1)
