"""The tokenizer ``vq``: its settings, how it learns, and what is built of what it learned. Torch is imported on use.

Shape letters: B batch, H and W height and width, C channels, V codebook size, Z numbers of a token's vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, final

from pydantic import Field, model_validator

from rarkit import ImageInfo, ImageReader, NotInFingerprint, Tokenizer, TokenizerModel, TrainSettings
from rarkit.errors import GridError
from rarkit.tokenizers import ImageDecoder, LearnedState
from rarkit_vq.loss_settings import DiscriminatorSettings, PerceptualSettings
from rarkit_vq.quantizer_settings import VQ, AnyQuantizer

if TYPE_CHECKING:
    from rarkit.training import Learning

Steps = Annotated[int, Field(gt=0, le=10**9)]
Batch = Annotated[int, Field(gt=0, le=2**20)]
WARM_UP = 100
"""Steps over which the learning rate rises, at most."""
LAST_RATE = 0.01
"""The learning rate at the end, of that at the peak."""
MOST_UNSAVED = 1000
"""Steps between checkpoints, at most, unless ``checkpoint_every`` says otherwise."""


@final
class VQTokenizer(Tokenizer):
    """An autoencoder that is trained on the dataset's images; the vector of each token is one of a codebook.

    ``start = "kmeans"`` begins as the codebook of patches that ``patch_kmeans`` learns and goes on from there, with convolutions on
    either side: better than k-means within a minute. ``start = "random"`` is a convolutional autoencoder from nothing, with any
    quantizer: for hours or a GPU. A tenth of the training images, 256 at most, is held back, and the weights that reconstruct those
    best are kept, those before the first step among them. Of a held-back image, no view (``flip``, ``random_crops``) is trained on.
    """

    name: Literal["vq"] = "vq"
    downsample: Literal[2, 4, 8, 16] = 8
    """Pixels of a token's side."""
    start: Literal["kmeans", "random"] = "kmeans"
    """What it is before training: a k-means codebook of patches, which needs ``quantizer.name = "vq"``, or random weights."""
    quantizer: AnyQuantizer = VQ()
    """How a token's vector becomes a code: ``vq`` (a codebook), ``fsq`` (levels), ``simvq`` (a codebook that moves as one) or
    ``lfq`` (bits)."""
    width: Annotated[int, Field(ge=8, le=1024, multiple_of=8)] = 64
    """Channels. With ``start = "random"`` there are as many at the resolution of the pixels, and up to four times as many at that
    of the tokens; with ``start = "kmeans"`` half as many and twice as many."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 1
    """Residual blocks at each resolution; with ``start = "kmeans"`` of the encoder's tokens, and twice as many of the decoder's."""
    steps: Steps = 10_000
    """Steps of training."""
    batch_size: Batch = 16
    """Images of a step, over all processes together."""
    micro_batch_size: Annotated[Batch | None, NotInFingerprint(tolerance=1e-3)] = None
    """Images of a forward and backward pass, for a step that does not fit into memory. Defaults to all that a process has."""
    learning_rate: Annotated[float, Field(gt=0, le=1.0)] = 1e-3
    """Peak learning rate; it rises over 100 steps, or a tenth of a short training, and falls along a cosine to a hundredth."""
    loss: Literal["l2", "l1"] = "l2"
    """The error of the pixels that is minimised: squared or absolute."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Decay of the average of the weights that is kept; 0 keeps the weights themselves."""
    kmeans_iterations: Annotated[int, Field(gt=0, le=10**6)] = 100
    """With ``start = "kmeans"``, iterations of k-means at most, as the ``iterations`` of ``patch_kmeans``."""
    kmeans_patches: Annotated[int, Field(gt=0, le=10**9)] = 200_000
    """With ``start = "kmeans"``, about how many patches k-means learns from, as the ``max_patches`` of ``patch_kmeans``."""
    measure_every: Steps = 250
    """Steps between measurements of the held-back images."""
    perceptual: PerceptualSettings | None = None
    """A perceptual loss beside the error of the pixels. Needs two files of weights."""
    discriminator: DiscriminatorSettings | None = None
    """A discriminator of patches, which is trained beside the tokenizer and begins to count late."""
    preview_every: Annotated[Steps, NotInFingerprint()] = 500
    """Steps between pictures of held-back images and their reconstructions, in ``runs/<recipe>/previews/``; the first is drawn
    before training, the last at its end, with the weights that are kept beside the last ones."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Autocast's dtype of the convolutions in training; the quantizer and the losses are in float32 always."""
    checkpoint_every: Annotated[Steps | None, NotInFingerprint()] = None
    """Steps between checkpoints, from which an interrupted training goes on to the same bits. Defaults to a tenth of ``steps``,
    1000 at most."""
    checkpoint_minutes: Annotated[float, Field(gt=0, le=1e6), NotInFingerprint()] = 1.0
    """Minutes after which a checkpoint is written even if ``checkpoint_every`` steps have not passed."""

    learns = True
    version: ClassVar[int] = 2

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start == "kmeans" and not isinstance(self.quantizer, VQ):
            raise ValueError(
                f'start = "kmeans" is a codebook, which quantizer {self.quantizer.name!r} has not: set start = "random", or '
                'quantizer.name = "vq"'
            )
        if self.start == "kmeans" and isinstance(self.quantizer, VQ) and self.quantizer.cosine:
            raise ValueError(
                'start = "kmeans" compares positions, not directions: set quantizer.cosine = false, or start = "random"'
            )
        if self.discriminator is not None and self.discriminator.start_step + self.discriminator.ramp_steps > self.steps:
            raise ValueError(
                f"discriminator.start_step {self.discriminator.start_step} and ramp_steps {self.discriminator.ramp_steps} are more "
                f"than steps {self.steps}: lower one of them, or raise steps"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by micro_batch_size {self.micro_batch_size}: set that to a "
                "divisor, or leave it out"
            )
        return self

    def rehearsed(self) -> Self:
        few = {"steps": 2, "batch_size": min(self.batch_size, 8), "micro_batch_size": None, "width": 8, "kmeans_iterations": 1}
        short = {"start_step": 1, "ahead_steps": 1, "ramp_steps": 1, "width": 8}
        discriminator = None if self.discriminator is None else self.discriminator.model_copy(update=short)
        return self.model_copy(update={**few, "perceptual": None, "discriminator": discriminator})

    def content(self) -> dict[str, str] | None:
        return None if self.perceptual is None else self.perceptual.content()

    def codebook_size(self) -> int:
        return self.quantizer.codebook_size()

    def grid(self, info: ImageInfo) -> tuple[int, int]:
        side = self.downsample
        if info.height % side or info.width % side:
            raise GridError(
                f"tokenizer 'vq' cannot cut images of {info.height}×{info.width} into tokens of {side}×{side} pixels. Choose a "
                "downsample that divides both sides, or another size in [dataset]."
            )
        return info.height // side, info.width // side

    def learn(self, reader: ImageReader, seed: int, learning: Learning) -> LearnedState:
        """Trains the network.

        Args:
            reader: training images, two or more.
            seed: decides the initial weights, the batches and the images that are held back.
            learning: the engine.

        Returns:
            The network's weights by name, float32.

        Raises:
            DatasetError: there are too few images, or fewer different patches than codes.
            GridError: the images do not divide into tokens.
        """
        from rarkit_vq.learning import learned

        return learned(self, reader, seed, learning)

    def without_files(self, state: LearnedState) -> tuple[Self, LearnedState]:
        # The losses' weights are for learning alone.
        return self.model_copy(update={"perceptual": None}), state

    def train_settings(self) -> TrainSettings:
        """What the engine is told."""
        return TrainSettings(
            steps=self.steps,
            batch_size=self.batch_size,
            micro_batch_size=self.micro_batch_size,
            learning_rate=self.learning_rate,
            end_learning_rate=self.learning_rate * LAST_RATE,
            warmup_steps=min(WARM_UP, self.steps // 10),
            weight_decay=0.0,
            ema_decay=self.ema_decay or None,
            precision=self.precision,
            checkpoint_every=self.checkpoint_every or min(MOST_UNSAVED, max(1, self.steps // 10)),
            checkpoint_minutes=self.checkpoint_minutes,
        )

    def image_decoder(self, state: LearnedState) -> ImageDecoder:
        from rarkit_vq.model import exported

        return exported(self, state)

    def build(self, state: LearnedState, device: str) -> TokenizerModel:
        from rarkit_vq.model import VQModel, restored

        return VQModel(restored(self, state), device, self.downsample)
