"""What a model family promises.

Shape letters: B batch, L tokens of an image, V codebook size.
"""

from __future__ import annotations

import tempfile
from abc import ABC
from itertools import pairwise
from pathlib import Path
from typing import Any

from rarkit.attention.plain import Plain
from rarkit.attention.sdpa import SDPA
from rarkit.errors import CapabilityError, UserError, WeightsError
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.testing.shaken_models import (
    BATCH,
    GRIDS,
    Batch,
    ShakenModels,
    distance,
    guidance_scales,
    refuses,
    same_bits,
    with_dropout,
)


class ModelFamilySuite(ShakenModels, ABC):
    """Set ``parts`` to small instances (a width of 32 and two blocks will do); ``device`` and ``tolerance`` where they differ."""

    def test_its_sizes_are_those_of_the_images(self) -> None:
        for part in self.parts:
            for grid in GRIDS:
                config = self._config(part, grid)
                found = config.seq_len, config.codebook_size, config.num_classes, config.class_dropout
                asked = grid[0] * grid[1], self.codebook_size, self.num_classes, part.class_dropout
                assert found == asked, f"{part!r} makes {found} of length, codes, classes, class dropout {asked}"
                model = part.create(config, Plain().build(), 0)
                assert model.config == config, f"{part!r}: the model's config is another than the one that it was made of"
                held = sum(weight.numel() for weight in model.parameters())
                assert config.parameter_count() == held, f"{part!r} holds {held} weights, and counts {config.parameter_count()}"

    def test_a_new_model_is_a_function_of_its_seed(self) -> None:
        import torch

        for part in self.parts:
            config, states = self._config(part), []
            for drawn_before, seed in enumerate((1, 1, 2)):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(drawn_before)
                    state = torch.random.get_rng_state()
                    states.append(part.create(config, Plain().build(), seed).state_dict())
                    same = torch.equal(state, torch.random.get_rng_state())
                assert same, f"{part!r} draws from torch's global generator: make a torch.Generator of the seed"
            first, again, other = states
            assert same_bits(first, again), f"{part!r} makes two models of one seed"
            assert not same_bits(first, other), f"{part!r} makes one model of two seeds"

    def test_it_says_what_it_expects_at_every_step(self) -> None:
        import torch

        for part in self.parts:
            for grid in GRIDS:
                model, batch = self._model(part, grid), self._batch(grid)
                logits_BLV = self._logits(model, batch)
                wanted = BATCH, grid[0] * grid[1], self.codebook_size
                assert tuple(logits_BLV.shape) == wanted, f"{part!r} returns logits {tuple(logits_BLV.shape)}, not {wanted}"
                assert logits_BLV.isfinite().all(), f"{part!r} returns logits that are no numbers"
                shared = batch._replace(orders_BL=batch.orders_BL[0])
                each = batch._replace(orders_BL=batch.orders_BL[:1].expand(BATCH, -1))
                assert torch.equal(self._logits(model, shared), self._logits(model, each)), f"{part!r}: an order (L,) is for all"

    def test_it_sees_the_tokens_before_a_step_and_no_others(self) -> None:
        for part in self.parts:
            model, batch = self._model(part), self._batch()
            before_BLV = self._logits(model, batch)
            length = before_BLV.shape[1]
            for step in range(length):
                # All tokens from this step on are others.
                after_BLV = self._logits(model, self._with_others(batch, range(step, length)))
                ahead = distance(before_BLV[:, : step + 1], after_BLV[:, : step + 1])
                assert ahead <= self.tolerance, f"{part!r}: logits at step {step} or before depend on tokens from step {step} on"
                after_BLV = self._logits(model, self._with_others(batch, [step]))
                if step + 1 < length:
                    seen = distance(before_BLV[:, step + 1], after_BLV[:, step + 1])
                    assert seen > 10 * self.tolerance, f"{part!r}: logits at step {step + 1} do not see the token of step {step}"

    def test_a_sample_does_not_depend_on_its_batch(self) -> None:
        import torch

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            rows = [Batch(*(value[row : row + 1] for value in batch)) for row in range(BATCH)]
            apart_BLV = torch.cat([self._logits(model, row) for row in rows])
            error = distance(self._logits(model, batch), apart_BLV)
            assert error <= self.tolerance, f"{part!r}: logits of a sample differ by {error} in another batch"

    def test_the_class_matters_unless_it_is_dropped(self) -> None:
        import torch

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            others = batch._replace(labels_B=(batch.labels_B + 1) % self.num_classes)
            dropped_B = torch.arange(BATCH, device=self.device) % 2 == 0
            one_BLV, other_BLV = (self._logits(model, each, dropped_B=dropped_B) for each in (batch, others))
            assert torch.equal(one_BLV[dropped_B], other_BLV[dropped_B]), f"{part!r} sees a class that is dropped"
            kept = distance(one_BLV[~dropped_B], other_BLV[~dropped_B])
            assert kept > 10 * self.tolerance, f"{part!r} gives the same logits for another class"
            lost = distance(one_BLV[dropped_B], self._logits(model, batch)[dropped_B])
            assert lost > 10 * self.tolerance, f"{part!r} gives the same logits without the class: dropped_B has no effect"

    def test_checkpointing_gives_the_same_gradients(self) -> None:
        import torch

        for part in self.parts:
            gradients = []
            for checkpointing in (False, True):
                model = self._model(part).train()
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    logits_BLV = model(*self._batch(), mask_seeds_B=self._seeds(), checkpointing=checkpointing)
                    logits_BLV.square().mean().backward()
                gradients.append({name: weight.grad for name, weight in model.named_parameters()})
            for name, gradient in gradients[0].items():
                again = gradients[1][name]
                assert (gradient is None) == (again is None), f"{part!r}: only one way gives {name} a gradient"
                if gradient is not None and again is not None:
                    error = distance(gradient, again)
                    assert error <= self.tolerance, f"{part!r}: the gradient of {name} is off by {error} with checkpointing"

    def test_dropout_acts_in_training_alone(self) -> None:
        import torch

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            still_BLV = self._logits(model, batch)
            assert torch.equal(still_BLV, self._logits(model, batch)), f"{part!r} draws something in eval mode"
            for name in part.dropped:
                shaken = self._model(with_dropout(part, name, 0.5)).train()
                loud = distance(still_BLV, self._logits(shaken, batch, mask_seeds_B=self._seeds()))
                assert loud > 10 * self.tolerance, f"{part!r}: {name} = 0.5 has no effect in training"
                with torch.random.fork_rng(devices=[]):
                    quiet = self._logits(shaken.eval(), batch, mask_seeds_B=self._seeds())
                assert torch.equal(quiet, still_BLV), f"{part!r}: {name} = 0.5 changes what a model in eval mode gives"

    def test_masks_of_attention_weights_come_from_the_samples_seeds(self) -> None:
        import torch

        for part in self.parts:
            if "attention_dropout" not in part.dropped:
                continue
            model, batch = self._model(with_dropout(part, "attention_dropout", 0.5)).train(), self._batch()
            seeds_B = self._seeds()
            with torch.random.fork_rng(devices=[]):
                first_BLV, again_BLV = (self._logits(model, batch, mask_seeds_B=seeds_B) for _ in range(2))
                seeds_B[0] += 100
                other_BLV = self._logits(model, batch, mask_seeds_B=seeds_B)
            assert torch.equal(first_BLV, again_BLV), f"{part!r} draws other masks from the same seeds"
            assert torch.equal(first_BLV[1:], other_BLV[1:]), f"{part!r}: a sample's masks depend on another sample's seed"
            assert not torch.equal(first_BLV[0], other_BLV[0]), f"{part!r} draws the same masks from another seed"

    def test_it_decodes_what_forward_computes(self) -> None:
        for part in self.parts:
            for attention in (Plain(), SDPA()):
                model = self._model(part, attention=attention)
                prepared = model.prepare()
                assert prepared.network is model, f"{part!r}: what is prepared must name the model as its network"
                for seed, (guidance, scales) in enumerate(guidance_scales(model.config.seq_len).items()):
                    size = 1 + seed % 3
                    error = self._decoding_error(model, prepared, self._batch(size=size, seed=seed), scales)
                    where = f"batch of {size}, attention {attention.name}, guidance: {guidance}"
                    assert error <= self.tolerance, f"{part!r}: logits are off by {error} in decoding ({where})"

    def test_restored_and_loaded_models_are_the_same(self) -> None:
        import torch

        from rarkit.files.weights import write_tensors

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            expected_BLV = self._logits(model, batch)
            restored = part.restore(model.config, Plain().build(), model.state_dict()).to(self.device).eval()
            assert torch.equal(self._logits(restored, batch), expected_BLV), f"{part!r}: a restored model is another one"
            with tempfile.TemporaryDirectory() as folder:
                for suffix in (".safetensors", ".bin"):
                    path = f"{folder}/model{suffix}"
                    write_tensors(model.state_dict(), path, model.metadata())
                    loaded = self._load(part, path, model.config)
                    assert not loaded.training, f"{part!r}: a loaded model is in eval mode"
                    assert torch.equal(self._logits(loaded, batch), expected_BLV), f"{part!r}: {suffix} gives another model"
                    halved = self._load(part, path, model.config, torch.bfloat16)
                    assert halved.dtype == torch.bfloat16, f"{part!r} loads {halved.dtype} where bfloat16 was asked for"

    def test_weights_that_do_not_fit_are_refused(self) -> None:
        from rarkit.files.weights import write_tensors

        for part in self.parts:
            model = self._model(part)
            other = part.config(grid=GRIDS[0], codebook_size=self.codebook_size + 1, num_classes=self.num_classes)
            arguments = other, Plain().build(), model.state_dict()
            assert refuses(RuntimeError, part.restore, *arguments), f"{part!r} restores weights that do not fit its sizes"
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/model.safetensors"
                missing = refuses(WeightsError, self._load, part, path, model.config)
                assert missing, f"{part!r} loads a file that is not there"
                write_tensors(model.state_dict(), path, model.metadata())
                misfit = refuses(WeightsError, self._load, part, path, other)
                assert misfit, f"{part!r} loads weights that do not fit its sizes"
                Path(path).write_bytes(Path(path).read_bytes()[:100])
                damaged = refuses(WeightsError, self._load, part, path, model.config)
                assert damaged, f"{part!r} loads a file that ends too early"

    def test_merging_positions_keeps_the_logits_or_is_refused(self) -> None:
        for part in self.parts:
            model, batch = self._model(part), self._batch()
            along = batch._replace(orders_BL=batch.orders_BL[0])
            try:
                merged = model.merge_positions(along.orders_BL)
            except UserError:
                continue
            error = distance(self._logits(merged, along), self._logits(model, along))
            assert error <= self.tolerance, f"{part!r}: merging changes logits by {error}"
            error = self._decoding_error(merged, merged.prepare(), batch, guidance_scales(merged.config.seq_len)["constant"])
            assert error <= self.tolerance, f"{part!r}: logits are off by {error} in decoding a merged model"

    def test_its_costs_grow_with_the_work(self) -> None:
        for part in self.parts:
            costs, config = part.costs(self._config(part)), self._config(part)
            training: dict[str, Any] = {"micro_batch": 2, "precision": "float32", "checkpointing": False, "keeps_weights": False}
            sampling: dict[str, Any] = {"batch": 2, "guided": False, "precision": "float32", "kv_cache": "same", "on_cpu": False}
            weights = {costs.training_bytes(**training).weights, costs.sampling_bytes(**sampling).weights}
            assert weights == {4 * config.parameter_count()}, f"{part!r}: {weights} bytes for {config.parameter_count()} weights"
            rising = {
                "step_flops": [costs.step_flops(size, checkpointing=again) for size, again in ((1, False), (2, False), (2, True))],
                "training_bytes": [costs.training_bytes(**{**training, "micro_batch": size}).total for size in (1, 2, 8)],
                "sampling_flops": [
                    costs.sampling_flops(batch=batch, classes=1, guided_steps=steps) for batch, steps in ((1, 0), (2, 0), (2, 5))
                ],
                "sampling_traffic": [
                    costs.sampling_traffic(batch=batch, guided_steps=steps, precision="float32")
                    for batch, steps in ((1, 0), (2, 0), (2, 5))
                ],
                "sampling_bytes": [
                    costs.sampling_bytes(**{**sampling, "batch": batch, "guided": guided}).total
                    for batch, guided in ((1, False), (2, False), (2, True))
                ],
            }
            for name, values in rising.items():
                assert values[0] > 0, f"{part!r}: {name} is {values[0]}"
                assert all(less < more for less, more in pairwise(values)), f"{part!r}: more work, and {name} goes {values}"

    def test_it_is_sampled_in_what_it_says(self) -> None:
        import torch

        from rarkit.sampling.generation import generate

        for part in self.parts:
            for precision, dtype in MODEL_DTYPES.items():
                for cache in ("same", "float8"):
                    model = self._model(part).to(getattr(torch, dtype))
                    asked = {"int8": precision == "int8", "float8_cache": cache == "float8"}
                    named = f"{part!r} with sample.precision = {precision!r} and kv_cache = {cache!r}"
                    if precision in part.precisions and cache in part.kv_caches:
                        drawn_BL = generate(model.prepare(**asked), [0, 1], order=self._batch().orders_BL[0])
                        assert ((drawn_BL >= 0) & (drawn_BL < self.codebook_size)).all(), f"{named} draws no codes"
                        continue
                    if any(asked.values()):
                        refused = refuses((UserError, CapabilityError), model.prepare, **asked)
                        assert refused, f"{named} is not in precisions or kv_caches, and prepare takes it all the same"

    def test_it_takes_its_own_schedule(self) -> None:
        for part in self.parts:
            part.check_schedule(part.default_schedule())

    def test_it_can_be_rehearsed(self) -> None:
        for part in self.parts:
            small = part.model_copy(update={"weights": "nowhere.safetensors"}).rehearsed()
            assert small.weights is None, f"{part!r}: a rehearsal has random weights; set weights to None in rehearsed()"
            logits_BLV = self._logits(self._model(small), self._batch())
            assert tuple(logits_BLV.shape) == (BATCH, GRIDS[0][0] * GRIDS[0][1], self.codebook_size)
