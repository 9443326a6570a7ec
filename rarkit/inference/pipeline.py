"""A trained model with its tokenizer, loaded once, to sample from and to measure with.

Shape letters: N images, H, W, C height, width, channels of an image, L tokens per image, V codebook size.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rarkit.errors import UserError
from rarkit.inference.drawing import Drawing
from rarkit.inference.inputs import Images, Labels, Order, images_of, labels_of, order_of, tokens_of
from rarkit.inference.sampled_tokens import INDICES_PER_CLASS, Classes, labels_to_sample, sampled_tokens, sampling_seed
from rarkit.inference.source import Source, changed
from rarkit.pipeline.cpu_threads import sensible_threads
from rarkit.registry.exits import exits_are_errors
from rarkit.runtime.progress import Reporter
from rarkit.runtime.random_state import random_state_kept
from rarkit.sampling.guidance import GuidanceSchedule, as_schedule
from rarkit.sampling.settings import SampleSettings
from rarkit.scan_orders.base import ScanOrder
from rarkit.stages.evaluate import LIKELIHOOD_BATCH
from rarkit.stages.sample import prepared
from rarkit.stages.tokenize import BATCH_ROWS, decoded
from rarkit.tokenizers.base import TokenizerModel

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rarkit.models.image_model import ImageModel
    from rarkit.sampling.decoder import Decodable

PER_CLASS = 8
AT_LOADING = ("precision", "kv_cache")
"""Settings of ``[sample]`` that are decided when the model is loaded."""


@contextmanager
def _in_public() -> Iterator[None]:
    """Around what users call, in which parts run."""
    with exits_are_errors(), random_state_kept():
        yield


@final
class Pipeline:
    """A trained model, ready to use: what ``rarkit.load`` returns. Arrays go in and come out; the model stays on its device."""

    model: ImageModel
    """The network, a ``torch.nn.Module`` in eval mode."""
    tokenizer: TokenizerModel
    settings: SampleSettings
    """How ``sample`` draws unless told otherwise: the ``[sample]`` table of the recipe."""

    def __init__(self, source: Source, device: str) -> None:
        """Loads a source; use ``rarkit.load``."""
        self._source, self._device = source, device
        # The model laid out for decoding, once for all calls.
        self._prepared: dict[str, Decodable] = {}
        self.settings = source.settings
        source.check_ready(device)
        with self._threads():
            self.model = source.model(device)
            self.tokenizer = source.tokenizer(device)

    def __repr__(self) -> str:
        height, width = self.grid
        model = self._source.experiment.recipe.model.name
        precision = self.settings.precision
        return f"<Pipeline: {model}, {height} × {width} tokens, {len(self.class_names)} classes, {precision} on {self._device}>"

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def scan_order(self) -> ScanOrder:
        return self._source.experiment.recipe.scan_order

    @property
    def order(self) -> NDArray[np.int64]:
        """The raster index visited at each step, (L,) int64."""
        return self._source.experiment.order_L

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the token grid."""
        return self._source.experiment.grid

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self._source.experiment.image_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class, by label."""
        return self._source.experiment.images.class_names

    @_in_public()
    def sample(
        self,
        classes: Sequence[str | int] | str | int | None = None,
        per_class: int = PER_CLASS,
        *,
        guidance: float | GuidanceSchedule | None = None,
        order: Order = None,
        seed: int | None = None,
        quiet: bool = True,
        **settings: Any,
    ) -> Drawing:
        """Samples images of given classes.

        Sample k of a class depends only on the seed, its class and k, and in float32 (up to ties) not on the batch size.

        Args:
            classes: a label, name or synset id, or several; None for ten classes, evenly spaced.
            per_class: images per class, at most 100,000.
            guidance: a constant scale, or a schedule from ``rarkit.sampling``; None for that of the recipe.
            order: a scan order other than the model's own, its name, or an array.
            seed: any integer; None for the seed that the recipe samples with.
            quiet: show no progress on stderr.
            **settings: other settings of a recipe's ``[sample]`` table by name: ``temperature``, ``top_k``, ``top_p``,
                ``batch_size``.

        Returns:
            A drawing: ``.images_NHWC`` uint8, ``.images`` for Pillow, ``.labels_N``, ``.tokens_NL``; it can be saved and animated.

        Raises:
            UserError: a class or setting does not exist, or has an invalid value.
        """
        for name in AT_LOADING:
            if name in settings:
                raise UserError(f"{name} is decided when the model is loaded: rarkit.load takes precision, rarkit.sample both")
        chosen = changed(self._source, None, {}, settings).settings
        if guidance is not None:
            chosen = chosen.model_copy(update={"guidance": as_schedule(guidance)})
        return self.draw(classes, per_class, chosen, order=order, seed=seed, reporter=Reporter(quiet=quiet))

    @_in_public()
    def draw(
        self,
        classes: Classes,
        per_class: int,
        settings: SampleSettings,
        *,
        order: Order = None,
        seed: int | None,
        reporter: Reporter,
    ) -> Drawing:
        """``sample`` with settings that are whole."""
        labels = labels_to_sample(self._source, classes, per_class)
        order_L, scan_order = order_of(order, self.scan_order, self.grid)
        seed = sampling_seed(self._source, settings) if seed is None else seed
        labels_N = np.repeat(np.array(labels, dtype=np.int64), per_class)
        indices_N = labels_N * INDICES_PER_CLASS + np.tile(np.arange(per_class), len(labels))
        with self._threads():
            tokens_NL = sampled_tokens(self._decoder(settings), settings, order_L, labels_N, indices_N, seed, reporter)
            with reporter.task("decode", len(labels_N), "images") as advance:
                parts = []
                for images in decoded(self.tokenizer, tokens_NL, self.grid, settings.batch_size):
                    parts.append(images)
                    advance(len(images))
        return Drawing(
            images_NHWC=np.concatenate(parts),
            labels_N=labels_N,
            tokens_NL=tokens_NL,
            classes=tuple(labels),
            class_names=tuple(self.class_names[label] for label in labels),
            per_class=per_class,
            grid=self.grid,
            order_L=order_L,
            seed=seed,
            scan_order=scan_order,
            settings=settings,
        )

    @_in_public()
    def log_likelihood(self, images: Images, labels: Labels, order: Order = None) -> NDArray[np.float64]:
        """log p(tokens | class) of each image, in nats: (N,) float64.

        It is the likelihood of the image's tokens, all L of them, predicted one after another along the order; how well the tokens
        stand for the pixels does not count. Divided by −L · log 2 it is the image's bits per token, whose mean over held-out
        images is the evaluation's ``bits_per_token``.

        Args:
            images: uint8 (N, H, W, C), or Pillow images, of the size of the model's.
            labels: one class for each, by label or name.
            order: along which scan order; None for the model's own.

        Raises:
            UserError: images, labels or order are not what they must be.
        """
        from rarkit.training.likelihood import nats_per_image

        tokens_NL = self.encode(images).reshape(-1, len(self.order))
        labels_N = labels_of(labels, len(tokens_NL), self.class_names)
        order_L, _ = order_of(order, self.scan_order, self.grid)
        if not len(tokens_NL):
            return np.zeros(0)
        with self._threads():
            nats_N = nats_per_image(self.model, tokens_NL, labels_N, order_L, batch_size=LIKELIHOOD_BATCH, device=self._device)
        return -nats_N * len(order_L)

    @_in_public()
    def logits(self, tokens: ArrayLike | Tensor, labels: Labels, order: Order = None) -> NDArray[np.float32]:
        """The predictions at every step, given the true tokens of the steps before: (N, L, V) float32.

        Entry t is about the token of cell ``order[t]``. No guidance, no temperature.

        Args:
            tokens: codes in raster order, as rows (N, L) or grids (N, height, width).
            labels: one class for each image, by label or name.
            order: along which scan order; None for the model's own.

        Raises:
            UserError: tokens, labels or order are not what they must be.
        """
        import torch

        tokens_NL = tokens_of(tokens, self.grid, self._source.experiment.codebook_size)
        labels_N = labels_of(labels, len(tokens_NL), self.class_names)
        order_L = torch.from_numpy(order_of(order, self.scan_order, self.grid)[0]).to(self._device)
        logits_NLV = np.empty((*tokens_NL.shape, self._source.experiment.codebook_size), np.float32)
        with self._threads(), torch.inference_mode():
            for start in range(0, len(tokens_NL), LIKELIHOOD_BATCH):
                batch = slice(start, start + LIKELIHOOD_BATCH)
                tokens_BL = torch.from_numpy(tokens_NL[batch]).to(self._device)
                labels_B = torch.from_numpy(labels_N[batch]).to(self._device)
                logits_NLV[batch] = self.model(tokens_BL, labels_B, order_L).float().cpu().numpy()
        return logits_NLV

    @_in_public()
    def encode(self, images: Images) -> NDArray[np.int64]:
        """The codes of images: grids (N, height, width) int64 in [0, V).

        Args:
            images: uint8 (N, H, W, C), or Pillow images, of the size of the model's.

        Raises:
            UserError: they are something else.
        """
        import torch

        images_NHWC = images_of(images, self._source.experiment.images)
        codes_NHW = np.empty((len(images_NHWC), *self.grid), np.int64)
        with self._threads(), torch.inference_mode():
            for start in range(0, len(images_NHWC), BATCH_ROWS):
                batch = slice(start, start + BATCH_ROWS)
                images_BHWC = torch.from_numpy(images_NHWC[batch].copy())
                codes_NHW[batch] = self.tokenizer.encode(images_BHWC).cpu().numpy()
        return codes_NHW

    @_in_public()
    def decode(self, tokens: ArrayLike | Tensor) -> NDArray[np.uint8]:
        """The images of codes: (N, H, W, C) uint8.

        Args:
            tokens: codes in raster order, as rows (N, L) or grids (N, height, width).

        Raises:
            UserError: they have another shape, or one is not a code.
        """
        tokens_NL = tokens_of(tokens, self.grid, self._source.experiment.codebook_size)
        with self._threads():
            images = list(decoded(self.tokenizer, tokens_NL, self.grid))
        return np.concatenate(images) if images else np.zeros((0, *self.image_shape), np.uint8)

    @_in_public()
    def save(self, path: str | os.PathLike[str]) -> str:
        """Writes a bundle, which ``rarkit.load`` reads: one safetensors file with the weights as they are loaded here.

        Returns the path. WeightsError if it cannot be written, CapabilityError if a part reads files that cannot be in a bundle.
        """
        return self._source.write_bundle(self.settings, self.model, path)

    @_in_public()
    def save_tokenizer(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
        """Writes the tokenizer alone to a file, as ``Run.save_tokenizer`` does."""
        return self._source.write_tokenizer(path, overwrite=overwrite)

    def _decoder(self, settings: SampleSettings) -> Decodable:
        if settings.kv_cache not in self._prepared:
            self._prepared[settings.kv_cache] = prepared(self.model, settings)
        return self._prepared[settings.kv_cache]

    def _threads(self) -> AbstractContextManager[None]:
        return sensible_threads(self._source.experiment, self._device)
