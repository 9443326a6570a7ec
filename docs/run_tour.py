"""Runs docs/tour.ipynb from start to end, and fails where a cell fails or shows another kind of thing than the kept output does.

nox -s notebook               checks
nox -s notebook -- --write    also keeps what was shown
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

TOUR = Path(__file__).parent / "tour.ipynb"


def main(arguments: list[str]) -> None:
    kept = nbformat.read(TOUR, as_version=4)
    tour = nbformat.read(TOUR, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # A cell that fails raises CellExecutionError, which shows it.
        NotebookClient(tour, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in tour.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.metadata = {} if "metadata" in output else output.get("metadata")
    if arguments == ["--write"]:
        nbformat.write(tour, TOUR)
        return
    changed = [cell.source for cell, before in zip(tour.cells, kept.cells, strict=True) if shows(cell) != shows(before)]
    if changed:
        sys.exit("\n\n".join(["These cells show something else than what is kept; see nox -s notebook -- --write:", *changed]))


def shows(cell: NotebookNode) -> list[list[str]]:
    """What a cell shows: the kind of each output, and the elements of its HTML."""
    outputs = [output for output in cell.get("outputs", []) if output.output_type != "stream"]
    return [sorted({*output.data, *re.findall(r"<([a-z]+)", output.data.get("text/html", ""))}) for output in outputs]


if __name__ == "__main__":
    main(sys.argv[1:])
