"""Writes the Python that the documentation shows into a folder, a file a page, for type checkers: published_python.py FOLDER.

``nox -s types`` runs mypy and pyright over them, and over the modules of the plugins in the repository.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import new_plugins
from pages import script

ROOT = Path(__file__).parents[1]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("*.py"), *folder.glob("*/*.py")]:
        old.unlink()
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        python = script(page)
        if python.strip():
            (folder / f"{page.stem.lower()}_page.py").write_text(python)
    for module in sorted(ROOT.glob("plugins/*/rarkit_*/*.py")):
        (folder / module.parent.name).mkdir(exist_ok=True)
        (folder / module.parent.name / module.name).write_text(module.read_text())
    # As rarkit plugins new writes them.
    for plugin in new_plugins.plugins():
        for name, text in plugin.texts().items():
            if name.endswith(".py") and "tests" not in name:
                (folder / plugin.module).mkdir(exist_ok=True)
                (folder / name).write_text(text)
    # As the editors of most people check: standard, not the stricter rules of basedpyright.
    settings = {"typeCheckingMode": "standard", "pythonVersion": "3.11", "include": ["."], "extraPaths": [str(ROOT)]}
    settings["reportMissingImports"] = "warning"  # xformers is in no environment of the checks; mypy sees misspelt ones of rarkit
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
