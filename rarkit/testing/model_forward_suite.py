"""The part of the suite of model families about ``forward``: what a model computes of a batch, and its gradients.

Shape letters: B batch, L tokens per image, V codebook size.
"""

from __future__ import annotations

from abc import ABC

from rarkit.models.base import ModelFamily
from rarkit.testing.failure import require, trying
from rarkit.testing.part_suite import untouched_randomness
from rarkit.testing.shaken_models import BATCH, GRIDS, Batch, ShakenModels, distance, with_dropout

LARGE = (17, 16)
"""A grid with more tokens than 256, the released models' number."""
HALF_ERROR = 0.05
"""Largest difference of logits in autocast to bfloat16, relative to the largest."""
CAUSAL = "The logits of step t depend on class, order and the tokens of steps before t"
STEPS, RATE = 20, 0.01
"""How long a model overfits a batch, with Adam."""


class ModelForwardSuite(ShakenModels, ABC):
    """Base of ``ModelFamilySuite``."""

    def test_it_says_what_it_expects_at_every_step(self, part: ModelFamily) -> None:
        import torch

        for grid in (*GRIDS, (1, 1), LARGE):
            model, batch = self._model(part, grid), self._batch(grid)
            given = f"given a batch of {BATCH} on a grid of {grid[0]}×{grid[1]}"
            logits_BLV = self._logits(part, model, batch, given)
            expected = BATCH, grid[0] * grid[1], self.codebook_size
            returned = f"returns logits {tuple(logits_BLV.shape)}"
            require(tuple(logits_BLV.shape) == expected, part, given, returned, f"They are (batch, tokens, codebook), {expected}")
            require(logits_BLV.isfinite().all(), part, given, "returns logits that are not finite", "Logits are finite numbers")
            shared = batch._replace(orders_BL=batch.orders_BL[0])
            each = batch._replace(orders_BL=batch.orders_BL[:1].expand(BATCH, -1))
            same = torch.equal(
                self._logits(part, model, shared, f"{given}, with an order (L,)"), self._logits(part, model, each, given)
            )
            require(same, part, f"{given}, with an order (L,)", "gives other logits than with (B, L)", "It applies to all samples")

    def test_it_sees_the_tokens_before_a_step_and_no_others(self, part: ModelFamily) -> None:
        for grid in (GRIDS[0], LARGE):
            model, batch, length = self._model(part, grid), self._batch(grid), grid[0] * grid[1]
            before_BLV = self._logits(part, model, batch, "given a batch")
            # On a large grid around some steps, on a small one all.
            for step in range(length) if length < 20 else (0, 1, 127, 128, 254, 255, 256, 257, length - 1):
                given = f"given other tokens from step {step} on, on a grid of {grid[0]}×{grid[1]}"
                after_BLV = self._logits(part, model, self._with_others(batch, range(step, length)), given)
                ahead = distance(before_BLV[:, : step + 1], after_BLV[:, : step + 1])
                require(ahead <= self.tolerance, part, given, f"gives other logits at step {step} or before", CAUSAL)
                given = f"given another token at step {step}, on a grid of {grid[0]}×{grid[1]}"
                after_BLV = self._logits(part, model, self._with_others(batch, [step]), given)
                if step + 1 < length:
                    seen = distance(before_BLV[:, step + 1], after_BLV[:, step + 1])
                    require(seen > 10 * self.tolerance, part, given, f"gives the same logits at step {step + 1}", CAUSAL)
                    last = distance(before_BLV[:, -1], after_BLV[:, -1])
                    require(last > 0, part, given, f"gives the same logits at the last step, {length - 1}", CAUSAL)

    def test_the_order_matters(self, part: ModelFamily) -> None:
        import torch

        model, batch = self._model(part), self._batch()
        # Of a single code, so that only the order differs.
        batch = batch._replace(tokens_BL=torch.full_like(batch.tokens_BL, 3))
        turned = batch._replace(orders_BL=batch.orders_BL.flip(1))
        given, cure = "given the same tokens in the reversed order", "Give the model the cells' positions, by orders_BL"
        moved = distance(self._logits(part, model, batch, given), self._logits(part, model, turned, given))
        require(moved > 10 * self.tolerance, part, given, "gives the same logits", cure)

    def test_a_sample_does_not_depend_on_its_batch(self, part: ModelFamily) -> None:
        import torch

        model, batch = self._model(part), self._batch()
        rows = [Batch(*(value[row : row + 1] for value in batch)) for row in range(BATCH)]
        apart_BLV = torch.cat([self._logits(part, model, row, "given a batch of 1") for row in rows])
        error = distance(self._logits(part, model, batch, "given a batch"), apart_BLV)
        fault = f"gives logits of a sample that differ by {error:.2g} from those of a batch of {BATCH}"
        require(error <= self.tolerance, part, "given a sample alone", fault, "A sample's logits depend on it alone")

    def test_inputs_stay_as_they_are_and_may_be_views(self, part: ModelFamily) -> None:
        import torch

        model, batch = self._model(part), self._batch()
        originals = Batch(*(value.clone() for value in batch))
        with untouched_randomness(part, "given a batch in eval mode"):
            expected_BLV = self._logits(part, model, batch, "given a batch")
        same = all(torch.equal(value, original) for value, original in zip(batch, originals, strict=True))
        require(same, part, "given a batch", "modifies tokens, labels or orders", "Work on a copy: training uses them again")
        given = "given tokens, labels and orders that are not contiguous"
        views = Batch(batch[0].T.contiguous().T, batch[1].repeat_interleave(2)[::2], batch[2].T.contiguous().T)
        error = distance(self._logits(part, model, views, given), expected_BLV)
        require(error <= self.tolerance, part, given, f"gives logits that are off by {error:.2g}", "Use reshape instead of view")

    def test_it_works_in_bfloat16(self, part: ModelFamily) -> None:
        """In autocast, as training does, and with weights in bfloat16, as sampling does."""
        import torch

        model, batch = self._model(part), self._batch()
        expected_BLV = self._logits(part, model, batch, "given a batch")
        given = "in autocast to bfloat16"
        with torch.autocast(torch.device(self.device).type, torch.bfloat16):
            error = distance(self._logits(part, model, batch, given), expected_BLV)
        cure = "Let autocast choose dtypes; keep norms and softmax in float32"
        require(error <= HALF_ERROR, part, given, f"gives logits that are off by {error:.2g}", cure)
        if "bfloat16" in part.precisions:
            given = "with weights in bfloat16"
            error = distance(self._logits(part, model.bfloat16(), batch, given), expected_BLV)
            require(error <= 2 * HALF_ERROR, part, given, f"gives logits that are off by {error:.2g}", cure)

    def test_the_class_matters_unless_it_is_dropped(self, part: ModelFamily) -> None:
        import torch

        model, batch = self._model(part), self._batch()
        relabelled = batch._replace(labels_B=(batch.labels_B + 1) % self.num_classes)
        dropped_B, given = torch.arange(BATCH, device=self.device) % 2 == 0, "given dropped_B"
        first_BLV, second_BLV = (self._logits(part, model, each, given, dropped_B=dropped_B) for each in (batch, relabelled))
        cure = "Where dropped_B is true, use the embedding of no class"
        unseen = torch.equal(first_BLV[dropped_B], second_BLV[dropped_B])
        require(unseen, part, "given another class that is dropped", "gives other logits", cure)
        kept = distance(first_BLV[~dropped_B], second_BLV[~dropped_B])
        require(kept > 10 * self.tolerance, part, "given another class", "gives the same logits", "The logits depend on the class")
        lost = distance(first_BLV[dropped_B], self._logits(part, model, batch, given)[dropped_B])
        require(lost > 10 * self.tolerance, part, given, "gives the same logits as with the class", cure)

    def test_checkpointing_gives_the_same_gradients(self, part: ModelFamily) -> None:
        import torch

        gradients = []
        for checkpointing in (0, 1, 2):
            model = self._model(part).train()
            given = f"with checkpointing={checkpointing}, backwards"
            with torch.random.fork_rng(devices=[]), trying(part, given, "Every operation of forward must be differentiable"):
                torch.manual_seed(0)
                logits_BLV = model(*self._batch(), mask_seeds_B=self._seeds(), checkpointing=checkpointing)
                logits_BLV.square().mean().backward()
            gradients.append({name: weight.grad for name, weight in model.named_parameters()})
        for name, again in (pair for recomputed in gradients[1:] for pair in recomputed.items()):
            gradient = gradients[0][name]
            cure = "Wrap the blocks in torch.utils.checkpoint.checkpoint(…, use_reentrant=False)"
            both = (gradient is None) == (again is None)
            require(both, part, "with checkpointing", f"has a gradient of {name} only with it or only without", cure)
            if gradient is not None and again is not None:
                error = distance(gradient, again)
                fault = f"has a gradient of {name} that is off by {error:.2g}"
                require(error <= self.tolerance, part, "with checkpointing", fault, cure)

    def test_it_learns(self, part: ModelFamily) -> None:
        """It overfits a batch, and every weight has a gradient: otherwise training on several GPUs waits for it."""
        import torch
        from torch.nn import functional

        model, batch = self._model(part).train(), self._batch()
        optimizer, losses = torch.optim.Adam(model.parameters(), RATE), []
        targets_BL = batch.tokens_BL.gather(1, batch.orders_BL)
        with torch.random.fork_rng(devices=[]), trying(part, "trained on a batch", "forward must be differentiable"):
            torch.manual_seed(0)
            for _ in range(STEPS):
                logits_BLV = model(*batch, mask_seeds_B=self._seeds())
                loss = functional.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten())
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
        without = [name for name, weight in model.named_parameters() if weight.grad is None]
        require(not without, part, "trained on a batch", f"has no gradient of {without}", "Use every weight in forward, or drop it")
        fault = f"has a loss of {losses[0]:.3f} at first and {losses[-1]:.3f} after {STEPS} steps"
        cure = "No weight may be detached from the logits; do not replace weights in forward"
        require(losses[-1] < 0.9 * losses[0], part, "trained on a batch", fault, cure)

    def test_dropout_acts_in_training_alone(self, part: ModelFamily) -> None:
        import torch

        model, batch = self._model(part), self._batch()
        expected_BLV = self._logits(part, model, batch, "in eval mode")
        same = torch.equal(expected_BLV, self._logits(part, model, batch, "in eval mode"))
        require(same, part, "in eval mode", "gives other logits the second time", "Drop nothing unless self.training")
        for name in part.dropped:
            dropping, given = self._model(with_dropout(part, name, 0.5)).train(), f"with {name} = 0.5"
            effect = distance(expected_BLV, self._logits(part, dropping, batch, given, mask_seeds_B=self._seeds()))
            fault, cure = "gives the same logits in training", "Drop in training mode, or leave it out of dropped"
            require(effect > 10 * self.tolerance, part, given, fault, cure)
            with torch.random.fork_rng(devices=[]):
                logits_BLV = self._logits(part, dropping.eval(), batch, given, mask_seeds_B=self._seeds())
            same = torch.equal(logits_BLV, expected_BLV)
            require(same, part, given, "gives other logits in eval mode", "Drop nothing unless self.training")

    def test_masks_of_attention_weights_come_from_the_samples_seeds(self, part: ModelFamily) -> None:
        import torch

        if "attention_dropout" not in part.dropped:
            return
        model, batch = self._model(with_dropout(part, "attention_dropout", 0.5)).train(), self._batch()
        seeds_B, given, cure = (
            self._seeds(),
            "with attention_dropout = 0.5",
            "Pass weight_dropout(…, mask_seeds_B, layer) to attention",
        )
        with torch.random.fork_rng(devices=[]):
            first_BLV, again_BLV = (self._logits(part, model, batch, given, mask_seeds_B=seeds_B) for _ in range(2))
            seeds_B[0] += 100
            reseeded_BLV = self._logits(part, model, batch, given, mask_seeds_B=seeds_B)
        require(torch.equal(first_BLV, again_BLV), part, f"{given} and the same seeds", "draws other masks", cure)
        others = torch.equal(first_BLV[1:], reseeded_BLV[1:])
        require(others, part, f"{given} and another seed of one sample", "draws other masks for the other samples", cure)
        same = torch.equal(first_BLV[0], reseeded_BLV[0])
        require(not same, part, f"{given} and another seed", "draws the same masks", cure)
