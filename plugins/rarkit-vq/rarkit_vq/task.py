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
from rarkit_vq._layers import Residual
from rarkit_vq._levels import as_levels, as_numbers
from rarkit_vq.images import Pictures
from rarkit_vq.network import Network, Pass
from rarkit_vq.tokenizer import VQTokenizer
from rarkit_vq.usage import Usage

NETWORK, PSNR = "tokenizer", "psnr"
IMAGES, PLACES = "images", "places"
SHOWN = 16
"""Images of a preview."""
LEAST_ERROR = 1 / 12
"""Mean square, in levels, below which an error is that of rounding: an image without any has a finite error too."""


@final
class Reconstructing(Task):
    """Reconstructs images: squared or absolute error, and the quantizer's terms."""

    def __init__(self, part: VQTokenizer, network: Network, trained_on: Pictures, held_back: Pictures, seed: int) -> None:
        """``part`` has the settings; ``network`` is trained on ``trained_on`` and measured with ``held_back``."""
        self.part, self.network, self.trained_on, self.held_back, self.seed = part, network, trained_on, held_back, seed
        self.networks: Mapping[str, nn.Module] = {NETWORK: network}
        self.held_out_samples = len(held_back)
        network.add_module(Usage.NAME, Usage(part.codebook_size()))
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def batch(self, step: int, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        rows_B, next_B = (
            rows_of_step(self.seed, later, self.part.batch_size, len(self.trained_on))[indices_B] for later in (step, step + 1)
        )
        images_BHWC = torch.from_numpy(self.trained_on.rows(rows_B, next_B))
        return {IMAGES: images_BHWC, PLACES: torch.from_numpy(indices_B)}

    def loss(self, name: str, network: nn.Module, batch: Mapping[str, Tensor]) -> Losses:
        images_BCHW = as_numbers(batch[IMAGES])
        passed: Pass = network(images_BCHW)
        difference_BCHW = passed.images_BCHW - images_BCHW
        reconstruction = difference_BCHW.abs().mean() if self.part.loss == "l1" else difference_BCHW.square().mean()
        self._seen.append((batch[PLACES], passed.codes_BHW.flatten(1), passed.vectors_BZHW.detach().flatten(2).transpose(1, 2)))
        return Losses(reconstruction + passed.loss, {"reconstruction": reconstruction, "quantizer": passed.loss})

    def blocks(self, name: str) -> Sequence[nn.Module]:
        return [module for module in self.networks[name].modules() if isinstance(module, Residual)]

    def held_out_batch(self, indices_B: NDArray[np.int64]) -> Mapping[str, Tensor]:
        return {IMAGES: torch.from_numpy(self.held_back.rows(indices_B))}

    def errors(self, networks: Mapping[str, nn.Module], batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        passed: Pass = networks[NETWORK](as_numbers(batch[IMAGES]))
        psnr_B = psnr_of(as_levels(passed.images_BCHW), batch[IMAGES])
        return {"error": -psnr_B, PSNR: psnr_B}

    def pictures(self, networks: Mapping[str, nn.Module]) -> Mapping[str, NDArray[np.uint8]]:
        rows_M = np.arange(min(SHOWN, len(self.held_back)))
        images_MHWC = self.held_back.rows(rows_M)
        device = next(networks[NETWORK].parameters()).device
        passed: Pass = networks[NETWORK](as_numbers(torch.from_numpy(images_MHWC).to(device)))
        return {"held-back images": images_MHWC, "reconstructions": as_levels(passed.images_BCHW).cpu().numpy()}

    def stepped(self, step: int, total: Callable[[Tensor], Tensor]) -> Mapping[str, Tensor]:
        """Lets codes follow, and counts them: from the vectors of all passes and processes, in the order of the samples."""
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
