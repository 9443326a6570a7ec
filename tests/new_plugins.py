"""A plugin of each kind from the templates, and a recipe that uses them all. ``new_plugins.py FOLDER`` writes both.

``nox -s new_plugins`` builds wheels of them, installs these beside rarkit's own wheel, checks the parts and runs the recipe.
"""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import rarkit
from rarkit.registry.kinds import KINDS
from rarkit.scaffold.new_plugin import NewPlugin, named, write

RECIPE = """\
title = "Only parts of new plugins"

[dataset]
name = "new_dataset"
size = 8
train_images = 60
test_images = 30

[tokenizer]
name = "new_tokenizer"
levels = 4

[scan_order]
name = "new_scan_order"

[permutation_schedule]
name = "new_permutation_schedule"

[attention]
name = "new_attention_backend"
queries = 5

[model]
name = "new_model"

[train]
steps = 4
batch_size = 8
warmup_steps = 1

[sample]
per_class = 10

[evaluate]
bootstrap = 2

[evaluate.features]
name = "new_feature_extractor"
cells = 2

[[trackers]]
name = "new_tracker"
"""


def plugins() -> list[NewPlugin]:
    """One for each kind."""
    kinds = [name.removesuffix("s") for name in KINDS]
    return [named(f"rarkit-new-{kind.replace('_', '-')}", kind) for kind in kinds]


def lay_out(distribution: Path, site: Path) -> None:
    """What pip would install of a distribution, without building it: its package, and what its pyproject.toml says."""
    project = tomllib.loads((distribution / "pyproject.toml").read_text())["project"]
    [(point, module)] = project["entry-points"]["rarkit"].items()
    shutil.copytree(distribution / module, site / module)
    info = site / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(f"[rarkit]\n{point} = {module}\n")


BROKEN = (
    "import a_library_that_nobody_has",
    "raise SystemExit(0)",
    'raise RuntimeError("boom")',
    "from rarkit import ScanOrder, hookimpl\n\n\n@hookimpl\ndef rarkit_scan_orders():\n    return [ScanOrder]",
    'requires_rarkit = ">=1000"',
)
"""Modules of plugins that do not load."""


def many(folder: Path, site: Path, count: int = 20) -> tuple[list[str], list[str]]:
    """Installs so many plugins, of which those in ``BROKEN`` do not load. The names of the sound ones, and of the others."""
    names = [f"many_{number}" for number in range(count)]
    for name in names:
        write(named(f"rarkit-{name}", "scan_order"), folder / name)
        lay_out(folder / name, site)
    broken = names[:: count // len(BROKEN)][: len(BROKEN)]
    for name, code in zip(broken, BROKEN, strict=True):
        (site / f"rarkit_{name}/__init__.py").write_text(code)
    return [name for name in names if name not in broken], broken


def print_orders(site: str, names: list[str]) -> None:
    """Prints what these scan orders give on a grid of 2 × 2, as somebody's script asks for them."""
    sys.path.insert(0, site)
    orders = rarkit.parts().scan_orders
    print(json.dumps({name: orders[name]().order(2, 2).tolist() for name in names}))


def main(folder: Path) -> None:
    for plugin in plugins():
        write(plugin, folder / plugin.distribution)
    (folder / "recipe.toml").write_text(RECIPE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
