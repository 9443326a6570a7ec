"""Recipes for the released models, with the settings each size was sampled with for the paper's results.

``recipes/rar_*_released.toml`` are the same recipes as files; a test compares them.
"""

from __future__ import annotations

from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.loader import parts

RELEASED: dict[str, tuple[float, float, float]] = {
    "rar_b": (1.0, 16.0, 2.75),
    "rar_l": (1.02, 15.5, 2.5),
    "rar_xl": (1.02, 6.9, 1.5),
    "rar_xxl": (1.02, 8.0, 1.2),
}
"""By preset: temperature, then scale and power of the power-cosine guidance."""
SEED, SIZE = 42, 256


def released_recipe(preset: str, weights: str, tokenizer: str) -> Recipe:
    """Sampling from a released checkpoint with its released settings: ImageNet at 256 × 256, raster order.

    Args:
        preset: a key of ``RELEASED``.
        weights: path or fsspec URL of the transformer's weights.
        tokenizer: path or fsspec URL of the MaskGIT-VQGAN's weights.
    """
    temperature, scale, power = RELEASED[preset]
    tables = {
        "title": f"{preset}, released, on ImageNet {SIZE} × {SIZE}",
        "seed": SEED,
        "dataset": {"name": "image_folder", "path": "imagenet", "class_list": "imagenet", "size": SIZE},
        "tokenizer": {"name": "maskgit_vqgan", "weights": tokenizer, "rounding": "down"},
        "scan_order": {"name": "raster"},
        "attention": {"name": "sdpa"},
        "model": {"preset": preset, "weights": weights},
        "sample": {
            "per_class": 50,
            "guidance": {"name": "power_cosine", "scale": scale, "power": power},
            "temperature": temperature,
            "precision": "bfloat16",
            "batch_size": 256,
            "npz": True,
        },
    }
    return parse_recipe(tables, parts(), "released recipe").named(f"{preset}_released")
