"""What the engine trains: the network, on the error of its reconstructions and the terms of its quantizer.

Shape letters: B samples of a pass, N samples of a step, C channels, H and W height and width of image or grid, Z numbers of a
token's vector, M vectors, or images that are shown, V codebook size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rarkit.training import Losses, Task, rows_of_step
from rarkit_vq import adversary, perceptual
from rarkit_vq._layers import Residual
from rarkit_vq._levels import as_levels, as_numbers
from rarkit_vq.images import Pictures
from rarkit_vq.network import Network, Pass
from rarkit_vq.tokenizer import VQTokenizer
from rarkit_vq.usage import Usage

NETWORK, DISCRIMINATOR = "tokenizer", "discriminator"
SHOWN = 8
"""Held-back images of a preview."""
IMAGES, PLACES = "images", "places"
RECONSTRUCTION, PERCEPTUAL, PSNR = "reconstruction", "perceptual", "psnr"
LEAST_ERROR = 1 / 12
"""Mean square, in levels, below which an error is that of rounding: an image without any has a finite error too."""


@final
class Reconstructing(Task):
    """Reconstructs images: squared or absolute error, and the quantizer's terms."""

    def __init__(self, part: VQTokenizer, network: Network, trained_on: Pictures, held_back: Pictures, seed: int) -> None:
        """``part`` has the settings; ``network`` is trained on ``trained_on`` and measured with ``held_back``."""
        self.part, self.network, self.trained_on, self.held_back, self.seed = part, network, trained_on, held_back, seed
        networks: dict[str, nn.Module] = {NETWORK: network}
        height, width, channels = trained_on.shape
        self.perceptual: perceptual.Perceptual | None = None
        if part.perceptual is not None:
            perceptual.check_size(height, width)
            self.perceptual = perceptual.load_perceptual(part.perceptual.vgg, part.perceptual.lpips)
        self.adversary: adversary.Adversary | None = None
        if part.discriminator is not None:
            adversary.check_size(part.discriminator, height, width)
            self.adversary = adversary.Adversary(part.discriminator, channels, network.decoder.get_submodule("out"))
            networks[DISCRIMINATOR] = self.adversary.network
            # Deception costs PSNR: what came before would always look better.
            self.best_from = part.discriminator.start_step + part.discriminator.ramp_steps
        self.networks = networks
        self.held_out_samples = len(held_back)
        network.add_module(Usage.NAME, Usage(part.codebook_size()))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def batch(self, step: int, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        if self.adversary is not None:
            self.adversary.begin(step)
        rows_B, next_B = (
            rows_of_step(self.seed, later, self.part.batch_size, len(self.trained_on))[indices_B] for later in (step, step + 1)
        )
        images_BHWC = torch.from_numpy(self.trained_on.rows(rows_B, next_B))
        return {IMAGES: images_BHWC, PLACES: torch.from_numpy(indices_B)}

    def loss(self, name: str, network: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
        images_BCHW = as_numbers(batch[IMAGES])
        if name == DISCRIMINATOR:
            assert self.adversary is not None
            return Losses(*self.adversary.own_loss(network, images_BCHW))
        passed: Pass = network(images_BCHW)
        measures = {"quantizer": passed.loss}

        def error(made_BCHW: Tensor) -> Tensor:
            terms = {key: values_B.mean() for key, values_B in self._terms(made_BCHW, images_BCHW).items()}
            measures.update(terms)
            return self._sum(terms)

        loss, others = (error(passed.images_BCHW), {}) if self.adversary is None else self.adversary.loss(passed.images_BCHW, error)
        measures.update(others)
        self._seen.append((batch[PLACES], passed.codes_BHW.flatten(1), passed.vectors_BZHW.detach().flatten(2).transpose(1, 2)))
        return Losses(loss + passed.loss, measures)

    def _terms(self, made_BCHW: Tensor, images_BCHW: Tensor) -> dict[str, Tensor]:
        """The errors (B,) of reconstructions, by name."""
        difference_BD = (made_BCHW - images_BCHW).flatten(1)
        terms = {RECONSTRUCTION: (difference_BD.abs() if self.part.loss == "l1" else difference_BD.square()).mean(1)}
        if self.perceptual is not None:
            terms[PERCEPTUAL] = self.perceptual(made_BCHW, images_BCHW)
        return terms

    def _sum(self, terms: Mapping[str, Tensor]) -> Tensor:
        if self.part.perceptual is None:
            return terms[RECONSTRUCTION]
        return terms[RECONSTRUCTION] + self.part.perceptual.weight * terms[PERCEPTUAL]

    def blocks(self, name: str) -> Sequence[nn.Module]:
        return [module for module in self.networks[name].modules() if isinstance(module, Residual)]

    def held_out_batch(self, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        return {IMAGES: torch.from_numpy(self.held_back.rows(indices_B))}

    def errors(self, networks: Mapping[str, nn.Module], batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        images_BCHW = as_numbers(batch[IMAGES])
        passed: Pass = networks[NETWORK](images_BCHW)
        psnr_B = psnr_of(as_levels(passed.images_BCHW), batch[IMAGES])
        if self.perceptual is None:
            return {"error": -psnr_B, PSNR: psnr_B}
        # What was trained for: by PSNR alone, weights that blur would be kept.
        terms = self._terms(passed.images_BCHW, images_BCHW)
        return {"error": self._sum(terms), PSNR: psnr_B, PERCEPTUAL: terms[PERCEPTUAL]}

    def previews(self, networks: Mapping[str, nn.Module]) -> Mapping[str, NDArray[np.uint8]]:
        images_MHWC = self.held_back.rows(np.arange(min(SHOWN, len(self.held_back))))
        device = next(networks[NETWORK].parameters()).device
        passed: Pass = networks[NETWORK](as_numbers(torch.from_numpy(images_MHWC).to(device)))
        return {"held-back images": images_MHWC, "reconstructions": as_levels(passed.images_BCHW).cpu().numpy()}

    def stepped(self, step: int, total: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
        """Lets codes follow, and counts them: from the vectors of all passes and processes, in the order of the samples."""
        if self.adversary is not None:
            self.adversary.stepped(total)
        places, codes, vectors = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        self._seen.clear()
        codes_NM = _gathered(places, codes, self.part.batch_size, total)
        if self.network.quantizer.follows:
            vectors_NMZ = _gathered(places, vectors, self.part.batch_size, total)
            self.network.quantizer.follow(vectors_NMZ.flatten(0, 1), codes_NM.flatten())
        usage = self.network.get_submodule(Usage.NAME)
        assert isinstance(usage, Usage)
        return usage.count(step, codes_NM)


def psnr_of(images_BHWC: Tensor, originals_BHWC: Tensor) -> Tensor:
    """The peak signal-to-noise ratio of each image, in dB: (B,) float32."""
    squared_B = (images_BHWC.float() - originals_BHWC.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / squared_B.clamp(min=LEAST_ERROR))


def _gathered(places_B: Tensor, values_BM: Tensor, count: int, total: Callable[[Tensor], Tensor]) -> Tensor:
    """What all processes have, (N, …), each sample at its place in the batch of the step."""
    gathered_NM = values_BM.new_zeros(count, *values_BM.shape[1:])
    gathered_NM[places_B] = values_BM
    return total(gathered_NM)
