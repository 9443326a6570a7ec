"""The quantizers as modules: those of vector-quantize-pytorch, and a codebook of patches. All of them work in float32.

Shape letters: B batch, Z numbers of a token's vector, H and W height and width of the grid, M vectors, V codebook size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from rarkit_vq.quantizer_settings import FSQ, LFQ, VQ, Quantizer, SimVQ

DISTANCES_AT_ONCE = 2**24
EVEN = 0.8
"""2 σ(1.6 z) − 1 is tanh(0.8 z)."""


class QuantizerModule(nn.Module, ABC):
    """Vectors to codes and to what the decoder gets of them."""

    follows: ClassVar[bool] = False
    """Whether ``begin`` and ``follow`` do anything."""

    @abstractmethod
    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """In training: the vectors of the codes (B, M, Z), through which gradients pass; the codes (B, M); the loss, a scalar."""

    @abstractmethod
    def codes(self, vectors_MZ: Tensor) -> Tensor:
        """The codes (M,) int64 of vectors; each depends on its own vector alone."""

    @abstractmethod
    def table(self) -> Tensor:
        """The vectors of all codes: (V, Z)."""

    def begin(self, vectors_MZ: Tensor) -> None:
        """Before the first step: codes are put where vectors of training images are. Draws from torch's generator."""
        return

    def leave(self) -> None:
        """In place of ``begin``, where nothing is trained: codes count as put somewhere."""
        return

    def follow(self, vectors_MZ: Tensor, codes_M: Tensor) -> None:
        """After each step of the optimizer, with all vectors of the step and their codes. Draws from torch's generator."""
        return

    def forward(self, vectors_BZHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As ``quantized``, of grids: vectors (B, Z, H, W), codes (B, H, W), loss."""
        with torch.autocast(vectors_BZHW.device.type, enabled=False):
            quantized_BMZ, codes_BM, loss = self.quantized(vectors_BZHW.float().flatten(2).transpose(1, 2))
        batch, _, height, width = vectors_BZHW.shape
        quantized_BZHW = quantized_BMZ.transpose(1, 2).reshape(vectors_BZHW.shape)
        return quantized_BZHW, codes_BM.reshape(batch, height, width), loss


def nearest(vectors_MZ: Tensor, table_VZ: Tensor) -> Tensor:
    """The code (M,) of the nearest vector of a table, in Euclidean distance.

    Without a matrix product, whose rounding would let a vector's code depend on the others of its batch.
    """
    chunk = max(1, DISTANCES_AT_ONCE // len(table_VZ))
    exact = "donot_use_mm_for_euclid_dist"
    codes = [torch.cdist(part, table_VZ, compute_mode=exact).argmin(1) for part in torch.split(vectors_MZ, chunk)]
    return torch.cat(codes)


@final
class PatchCodes(QuantizerModule):
    """A codebook that gradients reach: from the decoder, whose table it is, and the encoder, whose vectors it draws to itself."""

    def __init__(self, settings: VQ, values: int) -> None:
        super().__init__()
        self.codebook_embed_VZ = nn.Parameter(torch.zeros(settings.codes, values))
        self.commitment = settings.commitment

    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            codes_BM = torch.cdist(vectors_BMZ.flatten(0, 1), self.codebook_embed_VZ).argmin(1).reshape(vectors_BMZ.shape[:2])
        code_BMZ = functional.embedding(codes_BM, self.codebook_embed_VZ)
        loss = self.commitment * functional.mse_loss(vectors_BMZ, code_BMZ.detach())
        loss = loss + functional.mse_loss(code_BMZ, vectors_BMZ.detach())
        # The value is the code's; the gradient goes to the code and, straight through, to the encoder.
        return code_BMZ + (vectors_BMZ - vectors_BMZ.detach()), codes_BM, loss

    def codes(self, vectors_MZ: Tensor) -> Tensor:
        return nearest(vectors_MZ, self.codebook_embed_VZ)

    def table(self) -> Tensor:
        return self.codebook_embed_VZ


@final
class AveragedCodes(QuantizerModule):
    """The library's ``VectorQuantize``: codes are moving averages of their vectors, and dead ones are put back."""

    follows = True

    def __init__(self, settings: VQ, tokens: int) -> None:
        """``tokens``: vectors of a step."""
        import vector_quantize_pytorch as library

        super().__init__()
        self.vq = library.VectorQuantize(
            dim=settings.dimensions,
            codebook_size=settings.codes,
            decay=settings.decay,
            kmeans_init=True,
            use_cosine_sim=settings.cosine,
            threshold_ema_dead_code=settings.dead_below * tokens / settings.codes,
            commitment_weight=settings.commitment,
            # ``follow`` has the vectors of all processes.
            sync_codebook=False,
        )
        self.cosine = settings.cosine

    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Averages move in ``follow``, once a step, however many passes and processes it has.
        quantized_BMZ, codes_BM, loss = self.vq(vectors_BMZ, freeze_codebook=True)
        return quantized_BMZ, codes_BM, loss

    def codes(self, vectors_MZ: Tensor) -> Tensor:
        return nearest(functional.normalize(vectors_MZ, dim=1) if self.cosine else vectors_MZ, self.table())

    def table(self) -> Tensor:
        codebook_VZ: Tensor = self.vq.codebook
        return codebook_VZ

    def begin(self, vectors_MZ: Tensor) -> None:
        self.vq(vectors_MZ[None], freeze_codebook=True)

    def leave(self) -> None:
        for name, buffer in self.vq.named_buffers():
            if name.endswith("initted"):
                buffer.fill_(True)

    def follow(self, vectors_MZ: Tensor, codes_M: Tensor) -> None:
        self.vq.update_indices(vectors_MZ[None], codes_M[None])


@final
class MappedCodes(QuantizerModule):
    """The library's ``SimVQ``."""

    def __init__(self, settings: SimVQ) -> None:
        import vector_quantize_pytorch as library

        super().__init__()
        self.vq = library.SimVQ(settings.dimensions, settings.codes, commitment_weight=settings.commitment)

    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized_BMZ, codes_BM, loss = self.vq(vectors_BMZ)
        return quantized_BMZ, codes_BM, loss

    def codes(self, vectors_MZ: Tensor) -> Tensor:
        return nearest(vectors_MZ, self.table())

    def table(self) -> Tensor:
        codebook_VZ: Tensor = self.vq.codebook
        return codebook_VZ


@final
class Levels(QuantizerModule):
    """The library's ``FSQ``."""

    def __init__(self, settings: FSQ) -> None:
        import vector_quantize_pytorch as library

        super().__init__()
        self.vq = library.FSQ(list(settings.levels))
        self.scale = EVEN if settings.even else 1.0

    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized_BMZ, codes_BM = self.vq(vectors_BMZ * self.scale)
        return quantized_BMZ, codes_BM.long(), vectors_BMZ.new_zeros(())

    def codes(self, vectors_MZ: Tensor) -> Tensor:
        codes_1M: Tensor = self.vq(vectors_MZ[None] * self.scale)[1]
        return codes_1M[0].long()

    def table(self) -> Tensor:
        codebook_VZ: Tensor = self.vq.implicit_codebook
        return codebook_VZ


@final
class Bits(QuantizerModule):
    """The library's ``LFQ``."""

    def __init__(self, settings: LFQ) -> None:
        import vector_quantize_pytorch as library
        from vector_quantize_pytorch import lookup_free_quantization

        # The library's own divides by the number of processes, but drops the sum over them.
        lookup_free_quantization.maybe_distributed_mean = mean_of_processes
        super().__init__()
        self.vq = library.LFQ(
            dim=settings.bits,
            codebook_size=settings.codebook_size(),
            entropy_loss_weight=settings.entropy,
            commitment_loss_weight=settings.commitment,
        )

    def quantized(self, vectors_BMZ: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized_BMZ, codes_BM, loss = self.vq(vectors_BMZ)
        return quantized_BMZ, codes_BM.long(), loss

    def codes(self, vectors_MZ: Tensor) -> Tensor:
        weights_Z: Tensor = self.vq.mask
        return ((vectors_MZ > 0) * weights_Z).sum(1)

    def table(self) -> Tensor:
        codebook_VZ: Tensor = self.vq.codebook
        return codebook_VZ


def mean_of_processes(values: Tensor) -> Tensor:
    """The mean over all processes that train together, through which gradients pass."""
    distributed = torch.distributed
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return values
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(values)
    return total / distributed.get_world_size()


def make_quantizer(settings: Quantizer, tokens: int) -> QuantizerModule:
    """The module of a quantizer of ``start = "random"``; ``tokens``: vectors of a step."""
    match settings:
        case VQ():
            return AveragedCodes(settings, tokens)
        case SimVQ():
            return MappedCodes(settings)
        case FSQ():
            return Levels(settings)
        case LFQ():
            return Bits(settings)
    raise AssertionError(settings)


def dimensions(settings: Quantizer) -> int:
    """Z, the numbers of a token's vector, of a quantizer of ``start = "random"``."""
    match settings:
        case VQ() | SimVQ():
            return settings.dimensions
        case FSQ():
            return len(settings.levels)
        case LFQ():
            return settings.bits
    raise AssertionError(settings)
