"""Pictures of a model's samples while it is trained. They decide nothing in it.

Shape letters: M samples, L tokens of an image, H, W, C height, width and channels of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, final

import numpy as np
from numpy.typing import NDArray

from rarkit.engine.watching import Look
from rarkit.errors import CapabilityError
from rarkit.recipe.experiment import Experiment
from rarkit.registry.component import NotInFingerprint
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.sampling.settings import SampleSettings
from rarkit.stages.base import View, Work, read_state
from rarkit.stages.tokenize import decoded
from rarkit.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from rarkit.training.next_token import NextToken

IMAGES, CLASSES = 16, 4
"""Of a preview: as many images of each class."""


@final
class PreviewView(View):
    """What previews read, besides the view of the training."""

    seed: int
    sample: SampleSettings
    tokenizer: Tokenizer
    classes: Annotated[tuple[int, ...], NotInFingerprint()]
    captions: Annotated[tuple[str, ...], NotInFingerprint()]
    """Their names."""

    @classmethod
    def of(cls, experiment: Experiment) -> PreviewView | None:
        """What the recipe's previews read; None if it has none."""
        recipe = experiment.recipe
        if recipe.train is None or recipe.train.preview_every is None:
            return None
        all_of_them = experiment.sample_classes or tuple(range(experiment.images.num_classes))
        places = np.unique(np.linspace(0, len(all_of_them) - 1, CLASSES).round().astype(int))
        classes = tuple(all_of_them[place] for place in places)
        return cls(
            seed=experiment.sample_seed,
            sample=recipe.sample or SampleSettings(),
            tokenizer=recipe.tokenizer,
            classes=classes,
            captions=tuple(experiment.images.class_names[label] for label in classes),
        )


@final
class _BrokenOff(Exception):  # noqa: N818
    """A signal has stopped this process."""


@contextmanager
def _saying_what_to_leave_out(device: str) -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise CapabilityError(
            f"the memory of {device} does not suffice for previews beside the training. Leave train.preview_every out, or lower "
            "train.micro_batch_size; the same command goes on from the last checkpoint."
        ) from error


@final
class Previews:
    """Samples from the model as it would be kept, averaged if there is an average: on the first rank, while the others wait.

    It gathers the weights, whatever shards they lie in: the first process holds all of them once more on the host, in float32, and
    on its device once more in the precision of ``[sample]``, with the cache of 16 images. Nothing of that stays.
    """

    def __init__(self, work: Work[Any], task: NextToken, view: PreviewView) -> None:
        self._work, self._task, self._view = work, task, view
        self._every = task.settings.preview_every or 1

    def look(self, look: Look) -> None:
        """Draws, and shows what was drawn; nothing if a signal breaks it off."""
        from rarkit.training.next_token import MODEL

        step, view, ranks = look.trainer.step, self._view, self._work.ranks
        weights = look.trainer.weights(MODEL)
        if ranks.first and not look.arrived():
            try:
                picture_HWC = self._work.show(step, self._every, self._images(weights, look), view.captions)
            except _BrokenOff:
                picture_HWC = None
            if picture_HWC is not None:
                look.trackers.image(step, "train/previews", picture_HWC)
        ranks.meet()

    def _images(self, weights: Mapping[str, Tensor], look: Look) -> NDArray[np.uint8]:
        import torch

        from rarkit.sampling.generation import generate

        work, sample, view = self._work, self._view.sample, self._work.view
        labels_M = np.repeat(np.array(self._view.classes), IMAGES // len(self._view.classes))

        def check(step: int, tokens_BL: object) -> None:
            work.ranks.check()
            if look.arrived():
                raise _BrokenOff

        with torch.inference_mode(), _saying_what_to_leave_out(work.device):
            model = view.model.restore(view.config, view.attention.build(), weights).eval()
            model = model.to(device=work.device, dtype=getattr(torch, MODEL_DTYPES[sample.precision]))
            tokens_ML = generate(
                model.prepare(int8=sample.precision == "int8", float8_cache=sample.kv_cache == "float8"),
                labels_M,
                order=self._task.scan_order_L,
                choice=sample,
                seed=self._view.seed,
                on_step=check,
            )
            tokenizer = self._view.tokenizer.build(read_state(work.inputs.get("fit")), work.device)
            return np.concatenate(list(decoded(tokenizer, tokens_ML.cpu().numpy(), view.grid)))
