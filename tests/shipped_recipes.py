"""The recipes in recipes/, and which of them need a plugin."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "recipes"
NEEDS = {"photos": "rarkit-vq", "own_images": "rarkit-vq"}
"""The plugin whose parts a recipe names. Its tests plan and rehearse that recipe; those here do the others."""
WITHOUT_PLUGINS = sorted(path for path in FOLDER.glob("*.toml") if path.stem not in NEEDS)
