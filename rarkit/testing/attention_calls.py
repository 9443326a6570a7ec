"""Calls of attention as models make them: their sizes, and how the tensors lie in memory.

Shape letters: B batch, N heads, S and T query and key length, K head width.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from hypothesis import strategies as st

from rarkit.attention.base import AttentionBackend, Dropout
from rarkit.testing.failure import require, trying
from rarkit.testing.part_suite import PartSuite

if TYPE_CHECKING:
    from torch import Tensor

HALF_ERROR = 0.03
"""Largest error in bfloat16 and float16, relative to the largest number (absolute if that is below 1)."""
CURE = "Compute softmax(q kᵀ / √K) v; with causal=True, query s sees keys 0 to s"


@final
class Call(NamedTuple):
    """The sizes of a call."""

    batch: int
    heads: int
    queries: int
    keys: int
    width: int
    causal: bool
    layout: str = "dense"
    """``"dense"``; ``"joint"``, views of one projection, as in training; ``"cache"``, keys and values at the front of a cache."""
    scale: float = 1.0
    """What queries and keys are multiplied by."""

    def __str__(self) -> str:
        words = {
            "dense": "",
            "joint": ", views of a joint projection (not contiguous)",
            "cache": ", slices of a cache (not contiguous)",
        }
        sizes = f"batch {self.batch}, {self.heads} heads, {self.queries} queries, {self.keys} keys, width {self.width}"
        large = f", scores of up to {self.scale**2:.0f} standard deviations" if self.scale > 1 else ""
        return f"given {sizes}{', causal' if self.causal else ''}{words[self.layout]}{large}"

    def leaves(self, seed: int) -> list[Tensor]:
        """The tensors in memory, float32."""
        import torch

        batch, heads, width = self.batch, self.heads, self.width
        shapes: dict[str, list[tuple[int, ...]]] = {
            "dense": [(batch, heads, length, width) for length in (self.queries, self.keys, self.keys)],
            "joint": [(batch, self.queries, 3 * heads * width)],
            "cache": [(batch, self.queries, heads * width), (2, batch, heads, self.keys + 9, width)],
        }
        generator = torch.Generator().manual_seed(seed)
        return [torch.randn(shape, generator=generator) for shape in shapes[self.layout]]

    def views(self, leaves: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of them."""
        if self.layout == "joint":
            q, k, v = leaves[0].reshape(self.batch, self.queries, 3, self.heads, self.width).unbind(2)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        elif self.layout == "cache":
            q = leaves[0].reshape(self.batch, self.queries, self.heads, self.width).transpose(1, 2)
            k, v = leaves[1][:, :, :, : self.keys]
        else:
            q, k, v = leaves
        return (q, k, v) if self.scale == 1 else (self.scale * q, self.scale * k, v)


CALLS = (
    Call(2, 3, 9, 9, 16, True),
    Call(3, 2, 1, 33, 32, False, "cache"),
    # A 16 × 16 grid with its prefix, in which keys are more than a block of 256.
    Call(1, 2, 258, 258, 64, True, "joint"),
    Call(2, 3, 9, 9, 16, False),
    Call(2, 3, 1, 7, 16, False),
    Call(2, 3, 1, 1, 16, True),
    # The head widths of RAR-B, -L, -XL and -XXL, and a wide one.
    *(Call(2, 2, 12, 12, width, True, "joint") for width in (48, 64, 80, 88, 128)),
    Call(1, 1, 5, 5, 16, True, "joint"),
    # The heads of RAR-L, in a batch of more than a few.
    Call(40, 16, 4, 4, 16, True, "joint"),
    Call(1, 2, 130, 130, 16, True),
    # More keys than blocks of 256, 512 or 1,024.
    Call(2, 2, 1, 300, 64, False, "cache"),
    Call(1, 1, 3, 1030, 16, False),
    Call(1, 1, 520, 520, 16, True),
)


@st.composite
def drawn_calls(draw: Any) -> Call:
    """Calls of up to 3 samples, 5 heads and 320 keys."""
    batch, heads, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), 8 * draw(st.integers(2, 12))
    layout = draw(st.sampled_from(("dense", "joint", "cache")))
    keys = draw(st.integers(1, 320))
    causal = layout != "cache" and draw(st.booleans())
    queries = keys if causal or layout == "joint" else draw(st.integers(1, min(keys, 20)))
    return Call(batch, heads, queries, keys, width, causal, layout)


DRAWN = drawn_calls()
MOST_DRAWN = 12


class SmallCalls(PartSuite, ABC):
    """Calls of backends, compared with attention in float64."""

    parts: ClassVar[Sequence[AttentionBackend]] = ()
    device: ClassVar[str] = "cpu"
    dtype: ClassVar[str] = "float32"
    tolerance: ClassVar[float] = 1e-5
    """Largest error of the output, relative to the largest number (absolute if that is below 1); ten times that for gradients."""
    gradients: ClassVar[bool] = True
    """Whether the backend has a backward pass on this device."""
    calls: ClassVar[int] = len(CALLS)
    """How many calls a test makes; set a few (4) for a kernel that is compiled for every shape anew."""

    def _check(self, part: AttentionBackend, call: Call, dtype: str, tolerance: float) -> None:
        import torch

        inputs, given = self._inputs(call, dtype), f"{call}, in {dtype}"
        with torch.inference_mode() if call.layout == "cache" else torch.no_grad():
            output = self._read(part, given, *inputs, causal=call.causal)
        error = off(output, reference(inputs, call.causal))
        require(error <= tolerance, part, given, f"is off by {error:.2g}, where {tolerance:g} is allowed", CURE)

    def _check_gradients(self, part: AttentionBackend, call: Call) -> None:
        given = f"{call}, in {self.dtype}"
        leaves = [leaf.requires_grad_() for leaf in self._leaves(call, self.dtype)]
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        output = self._read(part, given, *call.views(leaves), causal=call.causal)
        reference(call.views(exact), call.causal).square().sum().backward()  # type: ignore[no-untyped-call]
        cure = "Use differentiable operations alone; set gradients = False if there is no backward pass"
        with trying(part, f"{given}, backwards", cure):
            output.square().sum().backward()  # type: ignore[no-untyped-call]
        for leaf, expected in zip(leaves, exact, strict=True):
            assert expected.grad is not None
            require(leaf.grad is not None, part, given, "returns no gradient", cure)
            assert leaf.grad is not None
            error = off(leaf.grad, expected.grad)
            require(error <= 10 * self.tolerance, part, given, f"has a gradient that is off by {error:.2g}", cure)

    def _read(
        self, part: AttentionBackend, given: str, q: Tensor, k: Tensor, v: Tensor, *, causal: bool, dropout: Dropout | None = None
    ) -> Tensor:
        """Calls the kernel, and checks shape and dtype of what it returns."""
        cure = "Take q, k and v of any strides: models pass views, on which view() fails; use reshape() or contiguous()"
        with trying(part, given, cure):
            output = part.build()(q, k, v, causal=causal, dropout=dropout)
        returned, wanted = f"{output.dtype} {tuple(output.shape)}", f"{q.dtype} {tuple(q.shape)}"
        require(returned == wanted, part, given, f"returns {returned}", f"Return {wanted}, like the queries")
        return output

    def _leaves(self, call: Call, dtype: str) -> list[Tensor]:
        import torch

        return [leaf.to(self.device, getattr(torch, dtype)) for leaf in call.leaves(call.queries + call.keys)]

    def _inputs(self, call: Call, dtype: str) -> tuple[Tensor, Tensor, Tensor]:
        return call.views(self._leaves(call, dtype))


def off(actual: Tensor, expected: Tensor) -> float:
    """The largest error, relative to the largest expected number (absolute if that is below 1); infinite for NaN."""
    error = float((actual.double() - expected.double()).abs().max() / expected.abs().max().clamp(min=1.0))
    return math.inf if math.isnan(error) else error


def reference(inputs: Sequence[Tensor], causal: bool) -> Tensor:
    """Attention in float64."""
    import torch

    q, k, v = (tensor.double() for tensor in inputs)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v
