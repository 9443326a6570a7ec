"""Every mutant of tests/testing against the whole suite of its kind, and every built-in part that needs no data.

    python benchmarks/mutants.py [--only WORD]

The tests run each mutant against the one test that must catch it; here are all tests that do, and the time of each part. Prints the
mutants that no test catches and the parts that fail, and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from machine import machine

sys.path.insert(0, str(Path(__file__).parents[1]))
from rarkit import Component, ImageInfo
from rarkit.attention.flex import Flex
from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.datasets.digits import Digits
from rarkit.datasets.generated import Generated
from rarkit.features.classifier import Classifier
from rarkit.features.inception import Inception
from rarkit.models.llama_ar.family import LlamaARFamily
from rarkit.models.rar.family import RARFamily
from rarkit.permutation_schedules.constant import Constant
from rarkit.permutation_schedules.cosine import Cosine
from rarkit.permutation_schedules.linear import Linear
from rarkit.permutation_schedules.step import Step
from rarkit.scan_orders.alternate import Alternate
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral
from rarkit.scan_orders.subsample import Subsample
from rarkit.scan_orders.z_curve import ZCurve
from rarkit.scan_orders.zigzag import Zigzag
from rarkit.testing import check
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from rarkit.tokenizers.pixel import Pixel
from tests.testing.mutants import MUTANTS, SETTINGS

COLOUR, WIDE = ImageInfo(8, 8, 3, tuple("abc")), ImageInfo(16, 32, 3, tuple("abc"))
SMALL: dict[str, Any] = {"hidden_size": 32, "depth": 2, "num_heads": 2}
VQGAN: dict[str, Any] = {"hidden_channels": 32, "channel_mult": (1, 1, 2), "num_res_blocks": 2, "z_channels": 32, "codes": 64}
EVEN = {"grids": ((2, 2), (4, 4), (16, 16), (32, 32))}
BUILT_IN: list[tuple[Component, dict[str, Any]]] = [
    *((part, {}) for part in (Raster(), Spiral(), Spiral(direction="outward"), Zigzag(), Alternate())),
    *((part, EVEN) for part in (ZCurve(), Subsample())),
    *((part, {"falls": True}) for part in (Constant(), Linear(), Cosine(), Step())),
    *((part, {}) for part in (Digits(), Generated(), PatchKMeans(codes=16), Pixel())),
    (MaskGITVQGAN(weights=None, **VQGAN), {"info": WIDE, "reconstructs": False}),
    *((part, {}) for part in (Plain(), SDPA())),
    (Flex(), {"gradients": False, "calls": 4}),
    (Classifier(steps=3, width=4), {}),
    (Inception(weights=None), {"info": COLOUR, "tolerance": 1e-4}),
    *((part, {}) for part in (RARFamily(**SMALL), LlamaARFamily(**SMALL))),
]


def failures(part: Component, settings: dict[str, Any]) -> list[str]:
    """What ``check`` has to say about a part: the first line of each failure."""
    try:
        check(part, every=True, **settings)
    except AssertionError as error:
        return str(error).split("\n\n")
    return []


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--only", default="", metavar="WORD", help="parts with this in their name")
    only = arguments.parse_args().only
    warnings.simplefilter("ignore")
    print(machine())
    wrong, seconds = [], 0.0
    for part, settings in BUILT_IN:
        if only in part.name:
            start = time.process_time()
            faults = failures(part, settings)
            seconds += time.process_time() - start
            print(f"{time.process_time() - start:6.2f} s  {part!r}"[:120], *faults, sep="\n    ")
            wrong += faults
    print(f"{seconds:.1f} s of processor time for the suites of all built-in parts")
    for mutant in MUTANTS:
        if only in mutant.name:
            faults = failures(mutant.part, SETTINGS.get(mutant.part.kind, {}))
            print(f"{len(faults):3} tests catch {mutant.name}")
            wrong += [] if faults else [f"no test catches {mutant.name}"]
    print(*wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
