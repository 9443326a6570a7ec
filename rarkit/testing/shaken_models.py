"""Small models of a family, batches for them, and distances between their outputs.

Shape letters: B batch, L tokens per image, V codebook size.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from rarkit.attention.base import AttentionBackend
from rarkit.attention.plain import Plain
from rarkit.models.base import ModelFamily
from rarkit.models.config import ModelConfig
from rarkit.testing.failure import require, trying
from rarkit.testing.part_suite import PartSuite

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from rarkit.models.image_model import ImageModel
    from rarkit.sampling.decoder import Decodable

BATCH, SHAKEN, PLAIN = 3, 0.2, Plain()
GRIDS = ((3, 4), (1, 6), (5, 2))


@final
class Batch(NamedTuple):
    """Arguments of ``ImageModel.forward``; ``orders_BL`` may be a single order (L,) for all samples."""

    tokens_BL: Tensor
    labels_B: Tensor
    orders_BL: Tensor


class ShakenModels(PartSuite, ABC):
    """Models with noise added to their initial weights, because layers that are initialised to zero hide mistakes."""

    parts: ClassVar[Sequence[ModelFamily]] = ()
    device: ClassVar[str] = "cpu"
    codebook_size: ClassVar[int] = 11
    num_classes: ClassVar[int] = 4
    tolerance: ClassVar[float] = 2e-5
    """Largest difference between two ways to compute the same, relative to the largest number (absolute if that is below 1)."""

    def _config(self, part: ModelFamily, grid: tuple[int, int] = GRIDS[0]) -> ModelConfig:
        return part.config(grid=grid, codebook_size=self.codebook_size, num_classes=self.num_classes)

    def _model(self, part: ModelFamily, grid: tuple[int, int] = GRIDS[0], attention: AttentionBackend = PLAIN) -> ImageModel:
        import torch

        with trying(part, f"created for a grid of {grid[0]}×{grid[1]}"):
            model = part.create(self._config(part, grid), attention.build(), 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight) * SHAKEN)
        return model.to(self.device).eval()

    def _load(self, part: ModelFamily, path: str, config: ModelConfig, dtype: torch.dtype | None = None) -> ImageModel:
        return part.load(path, config, PLAIN.build(), device=self.device, dtype=dtype)

    def _batch(self, grid: tuple[int, int] = GRIDS[0], size: int = BATCH, seed: int = 0) -> Batch:
        """Random tokens and classes, and a random order for each sample."""
        import torch

        length, generator = grid[0] * grid[1], torch.Generator().manual_seed(seed)
        tokens_BL = torch.randint(self.codebook_size, (size, length), generator=generator)
        labels_B = torch.randint(self.num_classes, (size,), generator=generator)
        orders_BL = torch.stack([torch.randperm(length, generator=generator) for _ in range(size)])
        return Batch(*(value.to(self.device) for value in (tokens_BL, labels_B, orders_BL)))

    def _seeds(self) -> Tensor:
        """A dropout seed per sample, (B,) int64."""
        import torch

        return torch.arange(BATCH, device=self.device)

    def _with_others(self, batch: Batch, steps: Iterable[int]) -> Batch:
        """The same batch with other tokens at these steps."""
        tokens_BL = batch.tokens_BL.clone()
        for step in steps:
            cells_B1 = batch.orders_BL[:, step : step + 1]
            tokens_BL.scatter_(1, cells_B1, (tokens_BL.gather(1, cells_B1) + 1) % self.codebook_size)
        return batch._replace(tokens_BL=tokens_BL)

    def _logits(self, part: ModelFamily, model: ImageModel, batch: Batch, given: str, **options: Any) -> Tensor:
        """The logits (B, L, V), without gradients."""
        import torch

        with torch.no_grad(), trying(part, given, "The docstring of ImageModel.forward says what it must take"):
            logits_BLV: Tensor = model(*batch, **options)
        return logits_BLV

    def _decoding_error(
        self, part: ModelFamily, given: str, model: ImageModel, prepared: Decodable, batch: Batch, scales: Sequence[float]
    ) -> float:
        """The distance of a model's own decoder from ``PlainDecoder``, along the order of the batch's first sample."""
        import torch

        from rarkit.sampling.plain import PlainDecoder

        order_L = batch.orders_BL[0]
        previous = [None, *batch.tokens_BL[:, order_L].unbind(1)[:-1]]
        with torch.inference_mode(), trying(part, given, "The docstring of Decoder says what it must take"):
            fast, plain = (
                torch.stack([decoder.logits(step, previous_B) for step, previous_B in enumerate(previous)], dim=1)
                for decoder in (
                    prepared.decoder(batch.labels_B, order_L, scales),
                    PlainDecoder(model, batch.labels_B, order_L, scales),
                )
            )
        require(fast.dtype == torch.float32, part, given, f"gives logits in {fast.dtype}", "A decoder's logits are float32")
        return distance(fast, plain)


def guidance_scales(length: int) -> dict[str, list[float]]:
    """Guidance scales of each step, by a descriptive name."""
    half = length // 2
    return {
        "none": [1.0] * length,
        "constant": [3.0] * length,
        "the class inverted": [-1.0] * length,
        "first half": [2.0] * half + [1.0] * (length - half),
        "second half": [1.0] * half + [2.0] * (length - half),
    }


def distance(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest expected number (absolute if that is below 1)."""
    difference = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1.0)
    return float(difference)


def with_dropout(part: ModelFamily, name: str, probability: float) -> ModelFamily:
    """The part with this dropout probability, and all others in ``dropped`` at 0."""
    others = dict.fromkeys(part.dropped, 0.0)
    return type(part).model_validate({**part.model_dump(), **others, name: probability})


def refuses(errors: type[Exception] | tuple[type[Exception], ...], call: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
    """Whether the call raises one of these errors."""
    try:
        call(*args, **kwargs)
    except errors:
        return True
    return False


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal, bit by bit."""
    import torch

    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
