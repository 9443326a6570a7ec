"""``rarkit cache``: lists, removes and verifies stage outputs, and removes those that no run needs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rarkit.cli.encoding import confirm, echo
from rarkit.cli.options import DEFAULT_STORE, AsJson, Commands, StoreUrl, flag, print_json
from rarkit.errors import LockedError, UserError

if TYPE_CHECKING:
    from rarkit.cache.output import StageOutput
    from rarkit.cache.store import Store

cache = typer.Typer(cls=Commands, no_args_is_help=True, help="Inspect and clean the store of stage outputs.")
Yes = Annotated[bool, flag("--yes", "-y", help="Remove without asking.")]
OutputNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="[STAGE[/FINGERPRINT]]...", help="Outputs by stage or stage/fingerprint; all if none is given."),
]


@cache.command("ls")
def cache_ls(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List stage outputs: how those of a stage differ, which runs need them, state, size and time."""
    from rarkit.cli import stored

    rows = stored.outputs(store, names)
    print_json(stored.outputs_as_json(store, rows)) if as_json else stored.print_outputs(store, rows)


@cache.command("rm")
def cache_rm(
    names: Annotated[
        list[str], typer.Argument(metavar="STAGE[/FINGERPRINT]...", help="Outputs by stage or stage/fingerprint; or receipts/NAME.")
    ],
    store: StoreUrl = DEFAULT_STORE,
    yes: Yes = False,
) -> None:
    """Remove stage outputs, or the receipts of runs, from the store; exit with 1 if some stay, since another run uses them."""
    from rarkit.cache.receipts import FOLDER, remove_receipt
    from rarkit.cli import stored
    from rarkit.cli.units import size

    place = stored.opened(store)
    receipts = [stored.receipt_named(place, name.partition("/")[2]) for name in names if name.startswith(f"{FOLDER}/")]
    kept = False
    named = [name for name in names if not name.startswith(f"{FOLDER}/")]
    for output in stored.outputs(store, named) if named else []:
        if _agreed(f"Remove {output.stage}/{output.fingerprint} ({size(output.bytes_used())})?", yes):
            kept = not _removed(place, output) or kept
    for receipt in receipts:
        if _agreed(f"Remove the receipt of {stored.run_name(receipt)}, so that what only it needs can go?", yes):
            remove_receipt(place, receipt.name)
            echo(f"removed {FOLDER}/{receipt.name}")
    if kept:
        raise typer.Exit(1)


@cache.command("gc")
def cache_gc(store: StoreUrl = DEFAULT_STORE, yes: Yes = False) -> None:
    """Remove the outputs that no run needs, after listing them."""
    from rarkit.cache.receipts import FOLDER, receipts, remove_receipt, unneeded
    from rarkit.cli import stored
    from rarkit.cli.units import size

    place = stored.opened(store)
    for folder, gone in stored.runs_gone(receipts(place)).items():
        # The folder may be on a disk or in a container that is not here: only a person can tell.
        where = (
            f"The folder {folder} was copied or made anew since a run"
            if os.path.isdir(folder)
            else f"There is no folder {folder} of a run"
        )
        question = f"{where} that is in this store. Forget the run, so that what only it needs can go?"
        if not yes and _at_a_terminal() and confirm(question):
            for receipt in gone:
                remove_receipt(place, receipt.name)
        else:
            names = " ".join(f"{FOLDER}/{receipt.name}" for receipt in gone)
            echo(f"{where}, but what that needs is kept. To let go of it: rarkit cache rm {names}", err=True)
    listed = unneeded(place)
    if not listed:
        echo("Nothing to remove: every output is needed by a run.")
        return
    stored.print_unneeded(listed)
    if not _agreed(f"Remove these {len(listed)} outputs ({size(sum(output.bytes_used() for output in listed))})?", yes):
        return
    # A run may have begun while the question stood there.
    still = {(output.stage, output.fingerprint) for output in unneeded(place)}
    for output in listed:
        name = f"{output.stage}/{output.fingerprint}"
        if (output.stage, output.fingerprint) not in still:
            echo(f"kept {name}: a run needs it now")
            continue
        _removed(place, output)


def _removed(place: Store, output: StageOutput) -> bool:
    """Removes an output; false if another run is writing or reading it."""
    name = f"{output.stage}/{output.fingerprint}"
    try:
        place.remove(output)
    except LockedError as error:
        echo(f"kept {name}: {error}")
        return False
    echo(f"removed {name}")
    return True


def _agreed(question: str, yes: bool) -> bool:
    """Whether the user agrees. Raises UserError where nobody can be asked."""
    if yes:
        return True
    if not _at_a_terminal():
        raise UserError(f"{question} Nobody can be asked here, so nothing was removed: give --yes.")
    return confirm(question)


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


@cache.command("verify")
def cache_verify(names: OutputNames = None, store: StoreUrl = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Verify the checksums of stage outputs; exit with 1 if any output is damaged."""
    from rarkit.cli import stored

    rows = [(output, stored.verified(output)) for output in stored.outputs(store, names)]
    if as_json:
        print_json([stored.verified_as_json(output, *verdict) for output, verdict in rows])
    else:
        stored.print_verified(rows)
    if any(state == "damaged" for _, (state, _) in rows):
        raise typer.Exit(1)
