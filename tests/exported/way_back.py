"""What transformers saved again is read back to the same bits: ``python -m tests.exported.way_back FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from rarkit.models import load_rar


def main(folder: Path) -> None:
    for path in sorted((folder / "exports").iterdir()):
        again = folder / "again" / path.name
        if path.is_dir() and again.exists():
            before, after = load_file(path / "model.safetensors"), load_file(again / "model.safetensors")
            assert before.keys() == after.keys(), path
            assert all(torch.equal(before[name], after[name]) for name in before), path
            if "scan_order" in before:
                back, expected = load_rar(again), load_file(path.with_name(f"{path.name}.safetensors"))
                logits_BLV = back(expected["tokens"], expected["labels"], expected["order"])
                torch.testing.assert_close(logits_BLV, expected["logits"], atol=1e-5, rtol=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
