"""How the tokenizer learns: the network as it begins, and its training by the engine.

Shape letters: N images, M vectors, Z numbers of a token's vector, V codebook size, D values of a patch, H, W, C height, width and
channels of an image.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch

import rarkit
from rarkit import ImageInfo, ImageReader
from rarkit.errors import DatasetError, RarkitWarning
from rarkit.tokenizers import LearnedState
from rarkit.training import rows_of_step
from rarkit_vq._levels import MIDDLE, as_numbers
from rarkit_vq.images import Chosen, Pictures, divided
from rarkit_vq.network import Network, make_network
from rarkit_vq.quantizers import PatchCodes
from rarkit_vq.task import NETWORK, PSNR, Reconstructing, psnr_of
from rarkit_vq.tokenizer import VQTokenizer
from rarkit_vq.usage import USED, Usage, window

if TYPE_CHECKING:
    from rarkit.training import Learning, Trained

BEGUN_WITH, VECTORS_A_CODE = 256, 64
"""Images whose vectors a codebook begins with, and vectors for each code, at most."""
MOST_COMPARED, PATCHES_A_CODE, ROUNDS_COMPARED = 1024, 32, 10
"""Codes, patches for each and iterations of the k-means that a network from nothing is compared with, at most: most of a minute
with patches of 16 × 16. Four times as many codes take sixteen times as long, and other processes wait."""
FEW = 0.5
"""Codes in use, of those that there are, below which a warning says so. So does the report, of trainings that are long enough."""


def learned(part: VQTokenizer, reader: ImageReader, seed: int, learning: Learning) -> LearnedState:
    """The trained weights by name; see ``VQTokenizer.learn``. Warns where few codes were in use when they were kept."""
    trained_on, held_back = divided(reader, seed)
    pictures = Pictures(trained_on)
    height, width, channels = pictures.shape
    rows, columns = part.grid(ImageInfo(height, width, channels, ("",)))
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        sizes = part.downsample, part.width, part.blocks, channels
        tokens = part.batch_size * rows * columns
        network = make_network(part.start, part.quantizer, *sizes, tokens=tokens)
        if learning.only_plans:
            network.quantizer.leave()
        else:
            begin(network, part, trained_on, pictures, seed)
        task = Reconstructing(part, network, pictures, Pictures(held_back, pictures), seed)
        trained = learning.train(
            task,
            part.train_settings(),
            seed=seed,
            title="tokenizer",
            micro=part.micro_batch_size,
            best_every=part.measure_every,
            preview_every=part.preview_every,
        )
    sentence = "Codes count as in use if they were seen in the last {value} steps."
    learning.note(f"{USED}_window", window(part.codebook_size(), tokens), sentence)
    note_kmeans(part, trained_on, held_back, trained, seed, learning)
    if learning.ranks.first:
        warn_of_few(part, trained, tokens)
    weights = trained.weights[NETWORK].items()
    return {name: tensor.numpy() for name, tensor in weights if not name.startswith(f"{Usage.NAME}.")}


def warn_of_few(part: VQTokenizer, trained: Trained, tokens: int) -> None:
    """Warns if few codes were in use when the weights were kept; ``tokens``: those of a step, all images together."""
    assert trained.best_step is not None
    # Each row is that of a step, which began with one step less.
    steps, codes = max(1, trained.best_step), part.codebook_size()
    used = int(trained.log[USED][steps - 1])
    # Of a training that was shorter than what is looked back on, less can be asked.
    if used < FEW * codes * min(1.0, steps / window(codes, tokens)):
        warnings.warn(
            f"tokenizer 'vq' uses {used} of its {codes} codes: the codebook has collapsed, or there are too few images for it. "
            f"{part.quantizer.few_used}",
            RarkitWarning,
            stacklevel=2,
        )


def note_kmeans(part: VQTokenizer, trained_on: Chosen, held_back: Chosen, trained: Trained, seed: int, learning: Learning) -> None:
    """Notes for the report what a codebook of patches reaches on the held-back images: a network that is blurred is below that."""
    psnr = f"held_out_{PSNR}"
    if part.start == "kmeans":
        decibels = float(trained.measured[psnr][0])
    elif learning.ranks.first and part.codebook_size() <= MOST_COMPARED:
        settings = {"max_patches": PATCHES_A_CODE * part.codebook_size(), "iterations": ROUNDS_COMPARED}
        kmeans = rarkit.parts().tokenizers["patch_kmeans"](patch=part.downsample, codes=part.codebook_size(), **settings)
        try:
            model = kmeans.build(kmeans.fit(trained_on, seed), "cpu")
        except DatasetError as error:
            learning.reporter.say(f"tokenizer: not compared with patch_kmeans: {error}")
            return
        images_NHWC = torch.from_numpy(held_back.read().images_NHWC)
        decibels = psnr_of(model.decode(model.encode(images_NHWC)), images_NHWC).mean().item()
    else:
        return
    sentence = "patch_kmeans, a codebook of patches with as many codes, reaches {value} dB on the held-back images."
    learning.note("patch_kmeans", decibels, sentence, beside=psnr)


def begin(network: Network, part: VQTokenizer, reader: ImageReader, pictures: Pictures, seed: int) -> None:
    """Puts the codes where they begin: at those of ``patch_kmeans``, or among the encoder's vectors of training images."""
    quantizer = network.quantizer
    if isinstance(quantizer, PatchCodes):
        settings = {"max_patches": part.kmeans_patches, "iterations": part.kmeans_iterations}
        kmeans = rarkit.parts().tokenizers["patch_kmeans"](patch=part.downsample, codes=part.codebook_size(), **settings)
        try:
            codebook_VD = torch.from_numpy(kmeans.fit(reader, seed)["codebook"])
        except DatasetError as error:
            raise DatasetError(
                "tokenizer 'vq' with start = \"kmeans\" has no codebook to begin with. "
                f'Lower quantizer.codes, or set start = "random". K-means said: {error}'
            ) from error
        with torch.no_grad():
            quantizer.codebook_embed_VZ.copy_((codebook_VD - MIDDLE) / MIDDLE)
    elif quantizer.follows:
        # Those of the first batches: data are often sorted.
        images_NHWC = pictures.rows(rows_of_step(seed, 0, min(BEGUN_WITH, len(pictures)), len(pictures)))
        with torch.no_grad():
            vectors_MZ = network.encoder(as_numbers(torch.from_numpy(images_NHWC))).movedim(1, -1).flatten(0, -2)
            most = VECTORS_A_CODE * part.codebook_size()
            quantizer.begin(vectors_MZ[torch.randperm(len(vectors_MZ))[:most]])
