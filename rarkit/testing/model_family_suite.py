"""The conformance suite of model families.

Shape letters: B batch, L tokens per image, V codebook size.
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
    """Set ``parts`` to small instances (width 32 and two blocks will do); override ``device`` and ``tolerance`` as needed."""

    def test_its_sizes_are_those_of_the_images(self) -> None:
        for part in self.parts:
            for grid in GRIDS:
                config = self._config(part, grid)
                sizes = config.seq_len, config.codebook_size, config.num_classes, config.class_dropout
                expected = grid[0] * grid[1], self.codebook_size, self.num_classes, part.class_dropout
                message = f"{part!r}: length, codes, classes and class dropout of the config are {sizes}, not {expected}"
                assert sizes == expected, message
                model = part.create(config, Plain().build(), 0)
                assert model.config == config, f"{part!r}: model.config is not the config that the model was created with"
                count = sum(weight.numel() for weight in model.parameters())
                assert config.parameter_count() == count, f"{part!r} has {count} weights, but counts {config.parameter_count()}"

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
                assert same, f"{part!r} draws from torch's global generator: create a torch.Generator from the seed"
            first, again, reseeded = states
            assert same_bits(first, again), f"{part!r} creates different models from the same seed"
            assert not same_bits(first, reseeded), f"{part!r} creates the same model from different seeds"

    def test_it_says_what_it_expects_at_every_step(self) -> None:
        import torch

        for part in self.parts:
            for grid in GRIDS:
                model, batch = self._model(part, grid), self._batch(grid)
                logits_BLV = self._logits(model, batch)
                expected = BATCH, grid[0] * grid[1], self.codebook_size
                assert tuple(logits_BLV.shape) == expected, f"{part!r} returns logits {tuple(logits_BLV.shape)}, not {expected}"
                assert logits_BLV.isfinite().all(), f"{part!r} returns logits that are not finite"
                shared = batch._replace(orders_BL=batch.orders_BL[0])
                each = batch._replace(orders_BL=batch.orders_BL[:1].expand(BATCH, -1))
                same = torch.equal(self._logits(model, shared), self._logits(model, each))
                assert same, f"{part!r}: an order (L,) must apply to all samples"

    def test_it_sees_the_tokens_before_a_step_and_no_others(self) -> None:
        for part in self.parts:
            model, batch = self._model(part), self._batch()
            before_BLV = self._logits(model, batch)
            length = before_BLV.shape[1]
            for step in range(length):
                # Other tokens from this step on.
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
            relabelled = batch._replace(labels_B=(batch.labels_B + 1) % self.num_classes)
            dropped_B = torch.arange(BATCH, device=self.device) % 2 == 0
            first_BLV, second_BLV = (self._logits(model, each, dropped_B=dropped_B) for each in (batch, relabelled))
            assert torch.equal(first_BLV[dropped_B], second_BLV[dropped_B]), f"{part!r} sees a class that is dropped"
            kept = distance(first_BLV[~dropped_B], second_BLV[~dropped_B])
            assert kept > 10 * self.tolerance, f"{part!r} gives the same logits for another class"
            lost = distance(first_BLV[dropped_B], self._logits(model, batch)[dropped_B])
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
                both = (gradient is None) == (again is None)
                assert both, f"{part!r}: {name} has a gradient only with or only without checkpointing"
                if gradient is not None and again is not None:
                    error = distance(gradient, again)
                    assert error <= self.tolerance, f"{part!r}: the gradient of {name} is off by {error} with checkpointing"

    def test_dropout_acts_in_training_alone(self) -> None:
        import torch

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            expected_BLV = self._logits(model, batch)
            assert torch.equal(expected_BLV, self._logits(model, batch)), f"{part!r} is random in eval mode"
            for name in part.dropped:
                dropping = self._model(with_dropout(part, name, 0.5)).train()
                effect = distance(expected_BLV, self._logits(dropping, batch, mask_seeds_B=self._seeds()))
                assert effect > 10 * self.tolerance, f"{part!r}: {name} = 0.5 has no effect in training"
                with torch.random.fork_rng(devices=[]):
                    logits_BLV = self._logits(dropping.eval(), batch, mask_seeds_B=self._seeds())
                assert torch.equal(logits_BLV, expected_BLV), f"{part!r}: {name} = 0.5 changes the logits in eval mode"

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
                reseeded_BLV = self._logits(model, batch, mask_seeds_B=seeds_B)
            assert torch.equal(first_BLV, again_BLV), f"{part!r} draws other masks from the same seeds"
            assert torch.equal(first_BLV[1:], reseeded_BLV[1:]), f"{part!r}: a sample's masks depend on another sample's seed"
            assert not torch.equal(first_BLV[0], reseeded_BLV[0]), f"{part!r} draws the same masks from another seed"

    def test_it_decodes_what_forward_computes(self) -> None:
        for part in self.parts:
            for attention in (Plain(), SDPA()):
                model = self._model(part, attention=attention)
                prepared = model.prepare()
                assert prepared.network is model, f"{part!r}: the network of prepare() must be the model itself"
                for seed, (guidance, scales) in enumerate(guidance_scales(model.config.seq_len).items()):
                    size = 1 + seed % 3
                    error = self._decoding_error(model, prepared, self._batch(size=size, seed=seed), scales)
                    case = f"batch of {size}, attention {attention.name}, guidance: {guidance}"
                    assert error <= self.tolerance, f"{part!r}: logits are off by {error} in decoding ({case})"

    def test_restored_and_loaded_models_are_the_same(self) -> None:
        import torch

        from rarkit.files.weights import write_tensors

        for part in self.parts:
            model, batch = self._model(part), self._batch()
            expected_BLV = self._logits(model, batch)
            restored = part.restore(model.config, Plain().build(), model.state_dict()).to(self.device).eval()
            assert torch.equal(self._logits(restored, batch), expected_BLV), f"{part!r}: a restored model gives other logits"
            with tempfile.TemporaryDirectory() as folder:
                for suffix in (".safetensors", ".bin"):
                    path = f"{folder}/model{suffix}"
                    write_tensors(model.state_dict(), path, model.metadata())
                    loaded = self._load(part, path, model.config)
                    assert not loaded.training, f"{part!r}: a loaded model must be in eval mode"
                    assert torch.equal(self._logits(loaded, batch), expected_BLV), f"{part!r}: a loaded {suffix} gives other logits"
                    halved = self._load(part, path, model.config, torch.bfloat16)
                    assert halved.dtype == torch.bfloat16, f"{part!r} loads {halved.dtype} instead of bfloat16"

    def test_weights_that_do_not_fit_are_refused(self) -> None:
        from rarkit.files.weights import write_tensors

        for part in self.parts:
            model = self._model(part)
            larger = part.config(grid=GRIDS[0], codebook_size=self.codebook_size + 1, num_classes=self.num_classes)
            arguments = larger, Plain().build(), model.state_dict()
            assert refuses(RuntimeError, part.restore, *arguments), f"{part!r} restores weights that do not fit its sizes"
            with tempfile.TemporaryDirectory() as folder:
                path = f"{folder}/model.safetensors"
                missing = refuses(WeightsError, self._load, part, path, model.config)
                assert missing, f"{part!r} loads a missing file"
                write_tensors(model.state_dict(), path, model.metadata())
                misfit = refuses(WeightsError, self._load, part, path, larger)
                assert misfit, f"{part!r} loads weights that do not fit its sizes"
                Path(path).write_bytes(Path(path).read_bytes()[:100])
                damaged = refuses(WeightsError, self._load, part, path, model.config)
                assert damaged, f"{part!r} loads a truncated file"

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
            assert error <= self.tolerance, f"{part!r}: logits of a merged model are off by {error} in decoding"

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
                assert all(less < more for less, more in pairwise(values)), f"{part!r}: {name} does not rise with work: {values}"

    def test_it_is_sampled_in_what_it_says(self) -> None:
        import torch

        from rarkit.sampling.generation import generate

        for part in self.parts:
            for precision, dtype in MODEL_DTYPES.items():
                for cache in ("same", "float8"):
                    model = self._model(part).to(getattr(torch, dtype))
                    layout = {"int8": precision == "int8", "float8_cache": cache == "float8"}
                    case = f"{part!r} with sample.precision = {precision!r} and kv_cache = {cache!r}"
                    if precision in part.precisions and cache in part.kv_caches:
                        drawn_BL = generate(model.prepare(**layout), [0, 1], order=self._batch().orders_BL[0])
                        in_codebook = (drawn_BL >= 0) & (drawn_BL < self.codebook_size)
                        assert in_codebook.all(), f"{case} draws tokens outside the codebook"
                        continue
                    if any(layout.values()):
                        refused = refuses((UserError, CapabilityError), model.prepare, **layout)
                        assert refused, f"{case} is not in precisions or kv_caches, but prepare accepts it"

    def test_it_takes_its_own_schedule(self) -> None:
        for part in self.parts:
            part.check_schedule(part.default_schedule())

    def test_it_can_be_rehearsed(self) -> None:
        for part in self.parts:
            small = part.model_copy(update={"weights": "nowhere.safetensors"}).rehearsed()
            assert small.weights is None, f"{part!r}: set weights to None in rehearsed(), because rehearsals use random weights"
            logits_BLV = self._logits(self._model(small), self._batch())
            assert tuple(logits_BLV.shape) == (BATCH, GRIDS[0][0] * GRIDS[0][1], self.codebook_size)
