"""A codebook of image patches, learned by k-means.

Shape letters: N images, B batch, H and W height and width of an image, C channels, P patches of an image, M patches in all,
V codebook size, D = patch · patch · C values of a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rarkit.errors import DatasetError, GridError, WeightsError
from rarkit.images import ImageInfo, ImageReader
from rarkit.randomness import derived_seed, drawn_rows, uniforms
from rarkit.registry.bounds import Images, Rounds, Side
from rarkit.tokenizers.base import ImageDecoder, LearnedState, Tokenizer, TokenizerModel, table_of_patches

if TYPE_CHECKING:
    from torch import Tensor

DISTANCES_AT_ONCE = 2**24
IMAGES_AT_ONCE = 256


@final
class PatchKMeans(Tokenizer):
    """One token per patch of ``patch`` × ``patch`` pixels: the nearest (Euclidean) of ``codes`` mean patches.

    The mean patches are k-means centres of training patches (k-means++, then Lloyd's iterations; scikit-learn's ``KMeans``),
    numbered from dark to light. A code depends only on its own patch, not on the rest of the image: a small, fast tokenizer for
    small images.
    """

    name: Literal["patch_kmeans"] = "patch_kmeans"
    patch: Side = 2
    """Height and width of a patch, in pixels."""
    codes: Annotated[int, Field(ge=2, le=2**16)] = 128
    """V, the codebook size."""
    iterations: Rounds = 100
    """Maximum number of Lloyd's iterations; they stop when no patch changes its code."""
    max_images: Images = 10_000
    """Maximum number of training images to learn from; from larger datasets this many are drawn without replacement."""
    max_patches: Images = 200_000
    """About how many patches to learn from; if there are more, each image gives equally many, drawn without replacement."""

    learns: ClassVar[bool] = True

    def codebook_size(self) -> int:
        return self.codes

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        if info.height % self.patch or info.width % self.patch:
            raise GridError(
                f"tokenizer 'patch_kmeans' cannot cut images of {info.height}×{info.width} into patches of "
                f"{self.patch}×{self.patch}. Choose a patch that divides both sides."
            )
        return info.height // self.patch, info.width // self.patch

    def fit(self, reader: ImageReader, seed: int) -> LearnedState:
        """Learns the codebook.

        Args:
            reader: training images.
            seed: determines which patches are drawn and where the centres start. The same seed gives the same bits.

        Returns:
            ``codebook`` (V, D) float32 in [0, 255].

        Raises:
            DatasetError: the images have fewer distinct patches than ``codes``.
            GridError: the images do not divide into patches.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        patches_MD = np.concatenate(list(self._drawn(reader, seed))).astype(np.float64)
        distinct = len(np.unique(patches_MD, axis=0))
        if distinct < self.codes:
            raise DatasetError(
                f"tokenizer 'patch_kmeans' cannot learn {self.codes} codes: the {len(patches_MD)} training patches of "
                f"{self.patch}×{self.patch} have only {distinct} distinct values. Set codes to {distinct} or less, "
                "or use more images."
            )
        random_state = derived_seed(seed, "k-means") % 2**32
        means = KMeans(self.codes, n_init=1, max_iter=self.iterations, tol=0.0, random_state=random_state)
        # With several threads KMeans sums in the order in which they finish, which varies.
        with threadpool_limits(1):
            means.fit(patches_MD)
        codebook_VD = means.cluster_centers_.clip(0, 255).astype(np.float32)
        return {"codebook": codebook_VD[np.argsort(codebook_VD.mean(1), kind="stable")]}

    def _drawn(self, reader: ImageReader, seed: int) -> Iterator[NDArray[np.uint8]]:
        """Patches (…, D) to learn from. The choice depends only on the seed, the number of images and their size."""
        rows = drawn_rows(seed, len(reader), self.max_images)
        each = -(-self.max_patches // max(1, len(rows)))
        done = 0
        for block in reader.chosen(rows, IMAGES_AT_ONCE):
            images_NHWC = block.images_NHWC
            height, width, channels = images_NHWC.shape[1:]
            self.grid(ImageInfo(height, width, channels, class_names=()))
            patches_NPD = _patches(images_NHWC, self.patch)
            count, places, width = patches_NPD.shape
            if places > each:
                chance_NP = uniforms(seed, "patches", 0, rows[done : done + count], places)
                chosen_NK = np.argsort(chance_NP, axis=1, kind="stable")[:, :each]
                patches_NPD = np.take_along_axis(patches_NPD, chosen_NK[..., None], axis=1)
            done += count
            yield patches_NPD.reshape(-1, width)

    def image_decoder(self, state: LearnedState) -> ImageDecoder:
        return table_of_patches(self, state, self.patch)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        import torch

        if "codebook" not in state:
            raise WeightsError(
                f"tokenizer 'patch_kmeans' needs its 'codebook', but the learned state has {sorted(state)}. Run the fit stage."
            )
        codebook_VD = np.asarray(state["codebook"], dtype=np.float32)
        if codebook_VD.ndim != 2 or codebook_VD.shape[0] != self.codes or codebook_VD.shape[1] % self.patch**2:
            raise WeightsError(
                f"a codebook of shape {codebook_VD.shape} does not fit {self.codes} codes of {self.patch}×{self.patch} pixels. "
                "It was learned with other settings: run the fit stage again."
            )
        return _PatchModel(torch.from_numpy(codebook_VD).to(device), self.patch)


def _patches(images_NHWC: NDArray[np.uint8], patch: int) -> NDArray[np.uint8]:
    """The patches in raster order, each flattened from (patch, patch, C): (N, P, D)."""
    count, height, width, channels = images_NHWC.shape
    cut = images_NHWC.reshape(count, height // patch, patch, width // patch, patch, channels)
    return cut.transpose(0, 1, 3, 2, 4, 5).reshape(count, -1, patch * patch * channels)


@final
class _PatchModel(TokenizerModel):
    def __init__(self, codebook_VD: Tensor, patch: int) -> None:
        self.codebook_VD = codebook_VD
        self.pixels_VD = codebook_VD.round().clamp(0, 255).byte()
        self.patch = patch
        self.channels = codebook_VD.shape[1] // patch**2

    def encode(self, images_BHWC: Tensor) -> Tensor:
        import torch

        batch, height, width, channels = images_BHWC.shape
        if channels != self.channels or height % self.patch or width % self.patch:
            raise GridError(
                f"images of {height}×{width} with {channels} channels do not divide into the codebook's patches of "
                f"{self.patch}×{self.patch} with {self.channels}. Use images like those the codebook was learned from."
            )
        rows, columns = height // self.patch, width // self.patch
        cut = images_BHWC.to(self.codebook_VD).reshape(batch, rows, self.patch, columns, self.patch, channels)
        patches_MD = cut.transpose(2, 3).reshape(batch * rows * columns, -1)
        chunk = max(1, DISTANCES_AT_ONCE // len(self.codebook_VD))
        # Without a matrix product, whose rounding would let a patch's code depend on its neighbours in the batch.
        exact = "donot_use_mm_for_euclid_dist"
        codes = [torch.cdist(part, self.codebook_VD, compute_mode=exact).argmin(1) for part in torch.split(patches_MD, chunk)]
        return torch.cat(codes).reshape(batch, rows, columns)

    def decode(self, codes_BHW: Tensor) -> Tensor:
        batch, rows, columns = codes_BHW.shape
        cut = self.pixels_VD[codes_BHW.to(self.pixels_VD.device)]
        cut = cut.reshape(batch, rows, columns, self.patch, self.patch, self.channels).transpose(2, 3)
        return cut.reshape(batch, rows * self.patch, columns * self.patch, self.channels)
