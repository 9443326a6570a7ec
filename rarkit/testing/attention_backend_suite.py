"""The conformance suite of attention backends.

Shape letters: B batch, N heads, S and T query and key length, K head width.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import pytest

from rarkit.attention.base import AttentionBackend, Dropout
from rarkit.errors import CapabilityError
from rarkit.testing.part_suite import PartSuite

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(9, 9, True), (9, 9, False), (1, 7, False), (1, 1, True), (130, 130, True)]
)


class AttentionBackendSuite(PartSuite, ABC):
    """Compares attention backends to softmax attention in float64. Set ``parts`` to instances, and override the rest as needed."""

    parts: ClassVar[Sequence[AttentionBackend]]
    device: ClassVar[str] = "cpu"
    dtype: ClassVar[str] = "float32"
    tolerance: ClassVar[float] = 1e-5
    """Largest absolute error of the output; ten times as much is allowed for gradients."""
    gradients: ClassVar[bool] = True
    """Whether the backend has a backward pass on this device."""

    @LENGTHS
    def test_it_is_softmax_attention(self, queries: int, keys: int, causal: bool) -> None:
        for part in self.parts:
            inputs = self._inputs(queries, keys)
            output = part.build()(*inputs, causal=causal)
            assert output.dtype == inputs[0].dtype, f"{part!r} returns {output.dtype} for queries in {inputs[0].dtype}"
            expected = _reference(inputs, causal)
            assert output.shape == expected.shape, f"{part!r} returns {tuple(output.shape)}, not {tuple(expected.shape)}"
            assert (output.double() - expected).abs().max() <= self.tolerance, f"{part!r} is not softmax attention"

    @LENGTHS
    def test_its_gradients_are_those_of_softmax_attention(self, queries: int, keys: int, causal: bool) -> None:
        for part in self.parts if self.gradients else ():
            leaves = [tensor.requires_grad_() for tensor in self._inputs(queries, keys)]
            exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
            part.build()(*leaves, causal=causal).square().sum().backward()  # type: ignore[no-untyped-call]
            _reference(exact, causal).square().sum().backward()  # type: ignore[no-untyped-call]
            for leaf, expected in zip(leaves, exact, strict=True):
                assert leaf.grad is not None, f"{part!r} returns no gradient"
                assert expected.grad is not None
                error = (leaf.grad.double() - expected.grad).abs().max()
                assert error <= 10 * self.tolerance, f"{part!r}: gradients off by {error}"

    def test_the_future_is_unseen(self) -> None:
        import torch

        for part in self.parts:
            q, k, v = self._inputs(8, 8)
            before = part.build()(q, k, v, causal=True)
            k[:, :, 5:], v[:, :, 5:] = 100.0, -100.0
            after = part.build()(q, k, v, causal=True)
            assert torch.equal(before[:, :, :5], after[:, :, :5]), f"{part!r} attends to later keys"

    def test_dropout_zeroes_weights_or_is_refused(self) -> None:
        """With equal scores and one-hot values, the output is the attention weights."""
        import torch

        for part in self.parts:
            q = torch.zeros(500, 2, 16, 16, device=self.device, dtype=getattr(torch, self.dtype))
            v = torch.eye(16, device=self.device, dtype=q.dtype).expand(500, 2, 16, 16).contiguous()
            if not part.has_dropout:
                try:
                    part.build()(q, q, v, causal=False, dropout=self._dropout(len(q)))
                except CapabilityError:
                    continue
                pytest.fail(f"{part!r} has has_dropout = False but accepts dropout: raise CapabilityError")
            try:
                weights = part.build()(q, q, v, causal=False, dropout=self._dropout(len(q))).double()
            except CapabilityError as error:
                pytest.fail(f"{part!r} refuses dropout: {error}. Set has_dropout = False, so that plans report it")
            kept = weights[weights != 0]
            # Of 256,000 weights, the share dropped is within 0.01 of a quarter: 11 standard deviations.
            assert abs(1 - kept.numel() / weights.numel() - 0.25) < 0.01, f"{part!r} does not drop a quarter of the weights"
            assert (kept * 12 - 1).abs().max() < 0.01, f"{part!r} does not scale the remaining weights by 4/3"

    def test_seeded_masks_depend_on_seed_and_layer_alone(self) -> None:
        import torch

        for part in self.parts:
            if not (part.has_dropout and part.has_seeded_dropout):
                continue
            q, k, v = self._inputs(9, 9)
            whole = part.build()(q, k, v, causal=True, dropout=self._dropout(2))
            again = part.build()(q, k, v, causal=True, dropout=self._dropout(2))
            assert torch.equal(whole, again), f"{part!r} has has_seeded_dropout = True but draws other masks from the same seeds"
            second = Dropout(0.25, self._dropout(2).seeds_B[1:], 0)
            alone = part.build()(q[1:], k[1:], v[1:], causal=True, dropout=second)
            assert (alone - whole[1:]).abs().max() <= self.tolerance, f"{part!r}: a sample's mask depends on its batch"
            for dropout in (Dropout(0.25, self._dropout(2).seeds_B + 2, 0), Dropout(0.25, self._dropout(2).seeds_B, 1)):
                changed = part.build()(q, k, v, causal=True, dropout=dropout)
                assert not torch.equal(changed, whole), f"{part!r} draws the same mask from another seed or layer"

    def _dropout(self, batch: int) -> Dropout:
        import torch

        return Dropout(0.25, torch.arange(batch, device=self.device), 0)

    def _inputs(self, queries: int, keys: int) -> list[Tensor]:
        import torch

        generator = torch.Generator().manual_seed(queries + keys)
        drawn = (torch.randn(2, 3, length, 16, generator=generator) for length in (queries, keys, keys))
        return [tensor.to(self.device, getattr(torch, self.dtype)) for tensor in drawn]


def _reference(inputs: Sequence[Tensor], causal: bool) -> Tensor:
    import torch

    q, k, v = (tensor.double() for tensor in inputs)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v
