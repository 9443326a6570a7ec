"""Exports as people make them, and what rarkit computes with them: ``python -m tests.exported.full FOLDER``.

The digits model; RAR-B with random weights, saved as the released ones are; a llama_ar along another order. Takes minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from rarkit import load_recipe, run
from rarkit.inference.source import open_source
from rarkit.inference.to_transformers.export import export_transformers
from rarkit.inference.to_transformers.source import open_exported
from rarkit.models import PRESETS, RAR
from rarkit.tokenizers.base import TokenizerModel
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from tests.exported.expectations import write_expectations

DIGITS = str(Path(__file__).parents[2] / "recipes" / "digits.toml")
LLAMA_AR = (
    'model={name="llama_ar",hidden_size=64,depth=4,num_heads=4}',
    "scan_order.name='spiral'",
    "train.steps=300",
    "sample.per_class=2",
)


def main(folder: Path) -> None:
    exports = folder / "exports"
    exports.mkdir(parents=True)
    recipes = {"digits": load_recipe(DIGITS), "llama_ar": load_recipe(DIGITS, LLAMA_AR, unset=["permutation_schedule", "evaluate"])}
    for name, recipe in recipes.items():
        finished = run(recipe.named(name), str(folder / "store"), device="cpu", runs=folder / "runs", quiet=True)
        export(finished.folder, exports / name, open_source(finished.folder).tokenizer("cpu"))
    weights, tokenizer = folder / "rar_b.bin", folder / "vqgan.bin"
    model = RAR(PRESETS["rar_b"], seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.03)
    torch.save(model.state_dict(), weights)
    # It rounds as the preset does: down, as the published sampler.
    random = MaskGITVQGAN(weights=None, rounding="down")
    torch.save(random.network().state_dict(), tokenizer)
    export(weights, exports / "rar_b", random.build({}, "cpu"), images=2, preset="rar_b", tokenizer=str(tokenizer))


def export(place: Path, target: Path, decoder: TokenizerModel, images: int = 3, **of: str) -> None:
    export_transformers(place, target, **of)
    opened = open_exported(place, of.get("preset"), of.get("tokenizer"), None)
    write_expectations(opened, decoder, target.with_name(f"{target.name}.safetensors"), images)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
