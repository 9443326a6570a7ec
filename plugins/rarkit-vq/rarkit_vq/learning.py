"""How the tokenizer learns: the network as it begins, and its training by the engine.

Shape letters: N images, M vectors, Z numbers of a token's vector, V codebook size, D values of a patch, H, W, C height, width and
channels of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import rarkit
from rarkit import ImageInfo, ImageReader
from rarkit.tokenizers import LearnedState
from rarkit_vq._levels import MIDDLE, as_numbers
from rarkit_vq.images import Pictures, divided
from rarkit_vq.network import Network, make_network
from rarkit_vq.quantizers import PatchCodes
from rarkit_vq.task import NETWORK, Reconstructing
from rarkit_vq.tokenizer import VQTokenizer
from rarkit_vq.usage import USED, Usage

if TYPE_CHECKING:
    from rarkit.training import Learning

BEGUN_WITH, VECTORS_A_CODE = 256, 64
"""Images whose vectors a codebook begins with, and vectors for each code, at most."""


def learned(part: VQTokenizer, reader: ImageReader, seed: int, learning: Learning) -> tuple[LearnedState, int]:
    """The trained weights by name, and how many codes were in use when they were kept; see ``VQTokenizer.learn``."""
    trained_on, held_back = divided(reader, seed)
    pictures = Pictures(trained_on)
    height, width, channels = pictures.shape
    rows, columns = part.grid(ImageInfo(height, width, channels, ("",)))
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        sizes = part.downsample, part.width, part.blocks, channels
        network = make_network(part.start, part.quantizer, *sizes, tokens=part.batch_size * rows * columns)
        begin(network, part, trained_on, pictures, seed)
        task = Reconstructing(part, network, pictures, Pictures(held_back), seed)
        trained = learning.train(
            task,
            part.train_settings(),
            seed=seed,
            title="tokenizer",
            micro=part.micro_batch_size,
            best_every=part.measure_every,
            preview_every=part.preview_every,
        )
    weights = trained.weights[NETWORK].items()
    state = {name: tensor.numpy() for name, tensor in weights if not name.startswith(f"{Usage.NAME}.")}
    # Each row is that of a step, which began with one step less.
    assert trained.best_step is not None
    return state, int(trained.log[USED][max(0, trained.best_step - 1)])


def begin(network: Network, part: VQTokenizer, reader: ImageReader, pictures: Pictures, seed: int) -> None:
    """Puts the codes where they begin: at those of ``patch_kmeans``, or among the encoder's vectors of training images."""
    quantizer = network.quantizer
    if isinstance(quantizer, PatchCodes):
        settings = {"patch": part.downsample, "codes": part.codebook_size(), "iterations": part.kmeans_iterations}
        kmeans = rarkit.parts().tokenizers["patch_kmeans"](**settings)
        codebook_VD = torch.from_numpy(kmeans.fit(reader, seed)["codebook"])
        with torch.no_grad():
            quantizer.codebook_embed_VZ.copy_((codebook_VD - MIDDLE) / MIDDLE)
    elif quantizer.follows:
        images_NHWC = pictures.rows(np.arange(min(BEGUN_WITH, len(pictures))))
        with torch.no_grad():
            vectors_MZ = network.encoder(as_numbers(torch.from_numpy(images_NHWC))).movedim(1, -1).flatten(0, -2)
            most = VECTORS_A_CODE * part.codebook_size()
            quantizer.begin(vectors_MZ[torch.randperm(len(vectors_MZ))[:most]])
