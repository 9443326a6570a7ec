"""Speed of the tokenizer in channels-last memory format against the contiguous one. Released architecture, random weights.

    python benchmarks/tokenizer.py [--size 256] [--batch 2] [--pairs 5]

Encodes and decodes the same images with the plain network (contiguous) and with rarkit's (channels last) in turn, and prints median
times and the median ratio over pairs. Writes benchmarks/results/tokenizer.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine

from rarkit.tokenizers.maskgit_vqgan import MaskGITModel, MaskGITVQGAN

RESULTS = Path(__file__).parent / "results"


def seconds(work: Callable[[], object]) -> float:
    """The time that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=256)
    arguments.add_argument("--batch", type=int, default=2)
    arguments.add_argument("--pairs", type=int, default=5)
    options = arguments.parse_args()
    network = MaskGITVQGAN(weights=None).network()
    plain, quick = copy.deepcopy(network), MaskGITModel(network, "cpu", options.batch)
    images = torch.randint(0, 256, (options.batch, options.size, options.size, 3), dtype=torch.uint8)
    codes = quick.encode(images)

    def plain_encode() -> torch.Tensor:
        return plain.quantize.nearest(plain.encoder((images.permute(0, 3, 1, 2).float() / 255).contiguous()))

    def plain_decode() -> torch.Tensor:
        return plain.decoder(plain.quantize.embedding(codes).permute(0, 3, 1, 2).contiguous())

    assert torch.equal(plain_encode(), codes)
    assert (plain_decode() - quick.images(codes)).abs().max() <= 1e-4
    rows = []
    for name, plain_work, quick_work in (
        ("encode", plain_encode, lambda: quick.encode(images)),
        ("decode", plain_decode, lambda: quick.decode(codes)),
    ):
        pairs = [(seconds(plain_work), seconds(quick_work)) for _ in range(options.pairs)]
        ratios = [slow / fast for slow, fast in pairs]
        rows.append(
            {
                "case": name,
                "plain_seconds": statistics.median(slow for slow, _ in pairs),
                "channels_last_seconds": statistics.median(fast for _, fast in pairs),
                "ratio": statistics.median(ratios),
                "ratios": ratios,
            }
        )
        print(
            "{case:8} plain {plain_seconds:6.2f} s, channels last {channels_last_seconds:6.2f} s, ratio {ratio:.2f}".format(
                **rows[-1]
            )
        )
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "options": vars(options), "rows": rows}
    (RESULTS / "tokenizer.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
