"""The conformance suite of attention backends.

Shape letters: B batch, N heads, S and T query and key length, K head width.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rarkit.attention.base import AttentionBackend, Dropout
from rarkit.attention.plain import Plain
from rarkit.errors import CapabilityError
from rarkit.models.base import ModelFamily
from rarkit.registry.loader import parts
from rarkit.testing.attention_calls import CALLS, DRAWN, HALF_ERROR, MOST_DRAWN, Call, SmallCalls, off
from rarkit.testing.failure import for_all, require, trying
from rarkit.testing.part_suite import untouched_randomness

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = ("rar", "llama_ar")
SMALL = {"hidden_size": 32, "depth": 1, "num_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}


class AttentionBackendSuite(SmallCalls, ABC):
    """Compares attention backends to softmax attention in float64. Set ``parts`` to instances, and override the rest as needed."""

    parts: ClassVar[Sequence[AttentionBackend]] = ()

    def test_it_is_softmax_attention(self, part: AttentionBackend) -> None:
        for call in CALLS[: self.calls]:
            self._check(part, call, self.dtype, self.tolerance)

    def test_it_is_softmax_attention_of_any_size(self, part: AttentionBackend) -> None:
        for_all(DRAWN, lambda call: self._check(part, call, self.dtype, self.tolerance), most=min(MOST_DRAWN, self.calls))

    def test_it_is_softmax_attention_in_half_precision(self, part: AttentionBackend) -> None:
        for dtype in ("bfloat16", "float16"):
            if dtype != self.dtype and part.capability(self.device, dtype) is None:
                for call in CALLS[: self.calls]:
                    self._check(part, call, dtype, HALF_ERROR)

    def test_large_scores_do_not_overflow(self, part: AttentionBackend) -> None:
        for call in (Call(2, 3, 9, 9, 16, True), Call(1, 2, 1, 40, 64, False)):
            self._check(part, call._replace(scale=30.0), self.dtype, max(1000 * self.tolerance, HALF_ERROR))

    def test_its_gradients_are_those_of_softmax_attention(self, part: AttentionBackend) -> None:
        for call in CALLS[: self.calls] if self.gradients else ():
            self._check_gradients(part, call)

    def test_the_future_is_unseen(self, part: AttentionBackend) -> None:
        import torch

        for length in (8, 300):
            call, seen = Call(2, 3, length, length, 16, True), length // 2
            q, k, v = self._inputs(call, self.dtype)
            before = self._read(part, str(call), q, k, v, causal=True)
            k, v = k.clone(), v.clone()
            k[:, :, seen:], v[:, :, seen:] = 100.0, -100.0
            after = self._read(part, str(call), q, k, v, causal=True)
            same = torch.equal(before[:, :, :seen], after[:, :, :seen])
            cure = "With causal=True, query s sees keys 0 to s alone"
            require(same, part, str(call), f"lets queries before {seen} see keys from {seen} on", cure)

    def test_inputs_stay_as_they_are(self, part: AttentionBackend) -> None:
        import torch

        call = CALLS[0]
        inputs = self._inputs(call, self.dtype)
        originals = [tensor.clone() for tensor in inputs]
        with untouched_randomness(part, f"{call}, without dropout"):
            first, again = (self._read(part, str(call), *inputs, causal=True) for _ in range(2))
        same = all(torch.equal(tensor, original) for tensor, original in zip(inputs, originals, strict=True))
        require(same, part, str(call), "modifies queries, keys or values", "Work on a copy: models use them again")
        require(torch.equal(first, again), part, str(call), "gives something else the second time", "Draw nothing without dropout")

    def test_models_train_and_sample_with_it(self, part: AttentionBackend) -> None:
        """A small model of each family, against the same model with plain attention."""
        for family in (parts().models[name].model_validate(SMALL) for name in FAMILIES):
            cure = "Models pass views of a joint projection, and slices of a cache: do not require contiguous memory"
            with trying(part, f"in a small {family.name}", cure):
                actual = self._of_model(family, part)
            errors = [off(*pair) for pair in zip(actual, self._of_model(family, Plain()), strict=True)]
            fault = f"makes logits or gradients that are off by {max(errors):.2g}"
            allowed = max(100 * self.tolerance, 1e-3)
            require(max(errors) <= allowed, part, f"in a small {family.name}", fault, "Compute softmax(q kᵀ / √K) v")

    def _of_model(self, family: ModelFamily, part: AttentionBackend) -> list[Tensor]:
        """The logits of a batch, those of the first steps of decoding, and the gradients of the batch."""
        import torch

        config = family.config(grid=(3, 4), codebook_size=11, num_classes=4)
        model = family.create(config, part.build(), 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
        model = model.to(self.device).eval()
        tokens_BL, labels_B, order_L = (torch.arange(24).reshape(2, 12) % 11, torch.tensor([0, 3]), torch.arange(11, -1, -1))
        tokens_BL, labels_B, order_L = (tensor.to(self.device) for tensor in (tokens_BL, labels_B, order_L))
        with torch.inference_mode():
            outcomes = [model(tokens_BL, labels_B, order_L)]
            decoder = model.prepare().decoder(labels_B, order_L, [2.0] * 12)
            outcomes += [decoder.logits(step, tokens_BL[:, step] if step else None) for step in range(3)]
        if self.gradients:
            model(tokens_BL, labels_B, order_L).square().mean().backward()
            outcomes += [weight.grad for weight in model.parameters() if weight.grad is not None]
        return outcomes

    def test_dropout_zeroes_weights_or_is_refused(self, part: AttentionBackend) -> None:
        """With equal scores and one-hot values, the output is the attention weights."""
        import torch

        q = torch.zeros(500, 2, 16, 16, device=self.device, dtype=getattr(torch, self.dtype))
        v = torch.eye(16, device=self.device, dtype=q.dtype).expand(500, 2, 16, 16).contiguous()
        given = "given dropout of a quarter of the weights"
        try:
            weights = part.build()(q, q, v, causal=False, dropout=self._dropout(len(q))).double()
        except CapabilityError as error:
            fault = f"refuses dropout ({error})"
            require(not part.has_dropout, part, given, fault, "Set has_dropout = False, so that plans report it")
            return
        fault = "accepts dropout, although has_dropout is False"
        require(part.has_dropout, part, given, fault, "Raise CapabilityError, or set has_dropout = True")
        kept = weights[weights != 0]
        # Of 256,000 weights, the share dropped is within 0.01 of a quarter: 11 standard deviations.
        dropped = 1 - kept.numel() / weights.numel()
        require(
            abs(dropped - 0.25) < 0.01, part, given, f"drops {dropped:.1%} of them", "Zero each with the probability of dropout"
        )
        off_by = float((kept * 12 - 1).abs().max())
        cure = "Multiply the other weights by 1 / (1 − probability)"
        require(off_by < 0.01, part, given, f"leaves weights that are off by {off_by:.0%}", cure)

    def test_seeded_masks_depend_on_seed_and_layer_alone(self, part: AttentionBackend) -> None:
        import torch

        if not (part.has_dropout and part.has_seeded_dropout):
            return
        call, cure = (
            Call(2, 3, 9, 9, 16, True),
            "Derive a sample's mask from its seed and the layer, or set has_seeded_dropout = False",
        )
        q, k, v = self._inputs(call, self.dtype)

        def read(rows: slice, dropout: Dropout) -> Tensor:
            return self._read(part, f"{call}, with dropout", q[rows], k[rows], v[rows], causal=True, dropout=dropout)

        both, seeds_B = slice(None), self._dropout(2).seeds_B
        whole, again = (read(both, self._dropout(2)) for _ in range(2))
        require(torch.equal(whole, again), part, "given the same seeds twice", "draws other masks", cure)
        alone = read(slice(1, 2), Dropout(0.25, seeds_B[1:], 0))
        error = float((alone - whole[1:]).abs().max())
        require(error <= self.tolerance, part, "given a sample alone", "draws another mask than in a batch", cure)
        for words, dropout in (("other seeds", Dropout(0.25, seeds_B + 2, 0)), ("another layer", Dropout(0.25, seeds_B, 1))):
            require(not torch.equal(read(both, dropout), whole), part, f"given {words}", "draws the same masks", cure)

    def _dropout(self, batch: int) -> Dropout:
        import torch

        return Dropout(0.25, torch.arange(batch, device=self.device), 0)
