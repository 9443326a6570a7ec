"""The four released sizes of RAR for ImageNet at 256 × 256 (arXiv 2411.00776, table 1)."""

from __future__ import annotations

import fnmatch

from rarkit.models.rar.config import RARConfig


def _released(hidden_size: int, depth: int, mlp_hidden_size: int) -> RARConfig:
    return RARConfig(
        hidden_size=hidden_size,
        depth=depth,
        num_heads=16,
        mlp_hidden_size=mlp_hidden_size,
        seq_len=256,
        codebook_size=1024,
        num_classes=1000,
    )


PRESETS: dict[str, RARConfig] = {
    "rar_b": _released(768, 24, 3072),
    "rar_l": _released(1024, 24, 4096),
    "rar_xl": _released(1280, 32, 5120),
    "rar_xxl": _released(1408, 40, 6144),
}
"""The released configurations by the names of their checkpoints."""


def list_models(pattern: str = "*") -> list[str]:
    """The names of the released sizes that match a pattern, such as ``"rar_x*"``: the presets of recipes and ``rarkit.load``."""
    return fnmatch.filter(PRESETS, pattern)
