"""The released models as recipes: how each size was sampled for the paper's numbers.

``recipes/rar_*_released.toml`` say the same for people to read and change; a test holds them to this.
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
"""Temperature, and scale and power of the power-cosine guidance, by preset."""
SEED, SIZE = 42, 256


def released_recipe(preset: str, weights: str, tokenizer: str) -> Recipe:
    """Sampling from a released checkpoint with its released settings: ImageNet at 256 × 256, raster order.

    Args:
        preset: a key of ``RELEASED``.
        weights: the transformer's file, a path or any fsspec URL.
        tokenizer: that of the MaskGIT-VQGAN.
    """
    temperature, scale, power = RELEASED[preset]
    tables = {
        "title": f"{preset}, released, on ImageNet {SIZE} × {SIZE}",
        "seed": SEED,
        "dataset": {"name": "image_folder", "path": "imagenet", "class_list": "imagenet", "size": SIZE},
        "tokenizer": {"name": "maskgit_vqgan", "weights": tokenizer},
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
