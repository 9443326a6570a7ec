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
from rarkit.models.base import ModelFamily
from rarkit.sampling.precision import MODEL_DTYPES
from rarkit.testing.failure import require, trying
from rarkit.testing.model_forward_suite import ModelForwardSuite
from rarkit.testing.part_suite import untouched_randomness
from rarkit.testing.shaken_models import BATCH, GRIDS, distance, guidance_scales, refuses, same_bits


class ModelFamilySuite(ModelForwardSuite, ABC):
    """Set ``parts`` to small instances (width 32 and two blocks will do); override ``device`` and ``tolerance`` as needed."""

    def test_its_sizes_are_those_of_the_images(self, part: ModelFamily) -> None:
        for grid in GRIDS:
            given = f"given a grid of {grid[0]}×{grid[1]}, {self.codebook_size} codes and {self.num_classes} classes"
            with trying(part, given):
                config = self._config(part, grid)
                model = part.create(config, Plain().build(), 0)
            sizes = config.seq_len, config.codebook_size, config.num_classes, config.class_dropout
            expected = grid[0] * grid[1], self.codebook_size, self.num_classes, part.class_dropout
            fault = f"has a config with length, codes, classes and class dropout {sizes}"
            require(sizes == expected, part, given, fault, f"They are {expected}")
            same = model.config == config
            require(
                same, part, given, "gives its model another config", "model.config is the config that the model was created with"
            )
            count = sum(weight.numel() for weight in model.parameters())
            fault = f"counts {config.parameter_count():,} weights where there are {count:,}"
            require(config.parameter_count() == count, part, given, fault, "Correct parameter_count")

    def test_a_new_model_is_a_function_of_its_seed(self, part: ModelFamily) -> None:
        import torch

        config, states = self._config(part), []
        for drawn_before, seed in enumerate((1, 1, 2)):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(drawn_before)
                with untouched_randomness(part, f"created with seed {seed}"):
                    states.append(part.create(config, Plain().build(), seed).state_dict())
        first, again, reseeded = states
        cure = "Create a torch.Generator from the seed, and draw all weights from it"
        require(same_bits(first, again), part, "created twice with seed 1", "has other weights", cure)
        require(not same_bits(first, reseeded), part, "created with another seed", "has the same weights", cure)

    def test_it_is_the_same_in_another_process(self, part: ModelFamily) -> None:
        sizes = {"grid": GRIDS[0], "codebook_size": self.codebook_size, "num_classes": self.num_classes}
        self._is_the_same_elsewhere(part, sizes=sizes)

    def test_it_decodes_what_forward_computes(self, part: ModelFamily) -> None:
        for attention in (Plain(), SDPA()):
            model = self._model(part, attention=attention)
            with trying(part, "prepared"):
                prepared = model.prepare()
            require(prepared.network is model, part, "prepared", "has another network", "The network of prepare() is the model")
            for seed, (guidance, scales) in enumerate(guidance_scales(model.config.seq_len).items()):
                size = 1 + seed % 3
                given = f"decoding a batch of {size} with attention {attention.name}, guidance: {guidance}"
                error = self._decoding_error(part, given, model, prepared, self._batch(size=size, seed=seed), scales)
                fault = f"gives logits that are off by {error:.2g}"
                require(error <= self.tolerance, part, given, fault, "A decoder computes what forward does, step by step")

    def test_restored_and_loaded_models_are_the_same(self, part: ModelFamily) -> None:
        import torch

        from rarkit.files.weights import write_tensors

        model, batch = self._model(part), self._batch()
        expected_BLV = self._logits(part, model, batch, "given a batch")
        with trying(part, "restored"):
            restored = part.restore(model.config, Plain().build(), model.state_dict()).to(self.device).eval()
        same = torch.equal(self._logits(part, restored, batch, "restored"), expected_BLV)
        require(same, part, "restored from its state dict", "gives other logits", "Load the tensors as they are")
        with tempfile.TemporaryDirectory() as folder:
            for suffix in (".safetensors", ".bin"):
                path, given = f"{folder}/model{suffix}", f"loaded from a {suffix}"
                write_tensors(model.state_dict(), path, model.metadata())
                with trying(part, given):
                    loaded = self._load(part, path, model.config)
                    halved = self._load(part, path, model.config, torch.bfloat16)
                require(not loaded.training, part, given, "is in training mode", "Return it in eval mode")
                same = torch.equal(self._logits(part, loaded, batch, given), expected_BLV)
                require(same, part, given, "gives other logits", "Load the tensors as they are")
                require(halved.dtype == torch.bfloat16, part, f"{given} with dtype=bfloat16", f"is in {halved.dtype}", "Convert it")

    def test_weights_that_do_not_fit_are_refused(self, part: ModelFamily) -> None:
        from rarkit.files.weights import write_tensors

        model = self._model(part)
        larger = part.config(grid=GRIDS[0], codebook_size=self.codebook_size + 1, num_classes=self.num_classes)
        misfit = refuses(RuntimeError, part.restore, larger, Plain().build(), model.state_dict())
        cure = "Raise RuntimeError, as load_state_dict does"
        require(misfit, part, "restored from weights of another codebook", "accepts them", cure)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.safetensors"
            refused = {"loaded from a file that is missing": refuses(WeightsError, self._load, part, path, model.config)}
            write_tensors(model.state_dict(), path, model.metadata())
            refused["loaded from weights of another codebook"] = refuses(WeightsError, self._load, part, path, larger)
            Path(path).write_bytes(Path(path).read_bytes()[:100])
            refused["loaded from a truncated file"] = refuses(WeightsError, self._load, part, path, model.config)
        for given, well in refused.items():
            require(well, part, given, "accepts it, or raises another error", "Raise WeightsError")

    def test_merging_positions_keeps_the_logits_or_is_refused(self, part: ModelFamily) -> None:
        model, batch = self._model(part), self._batch()
        along, given = batch._replace(orders_BL=batch.orders_BL[0]), "with its positions merged"
        try:
            merged = model.merge_positions(along.orders_BL)
        except UserError:
            return
        error = distance(self._logits(part, merged, along, given), self._logits(part, model, along, given))
        cure = "Along its order, a merged model computes what the model does"
        require(error <= self.tolerance, part, given, f"gives logits that are off by {error:.2g}", cure)
        scales = guidance_scales(merged.config.seq_len)["constant"]
        error = self._decoding_error(part, given, merged, merged.prepare(), batch, scales)
        require(error <= self.tolerance, part, f"{given}, decoding", f"gives logits that are off by {error:.2g}", cure)

    def test_its_costs_grow_with_the_work(self, part: ModelFamily) -> None:
        config = self._config(part)
        costs = part.costs(config)
        training: dict[str, Any] = {"micro_batch": 2, "precision": "float32", "checkpointing": False, "keeps_weights": False}
        sampling: dict[str, Any] = {"batch": 2, "guided": False, "precision": "float32", "kv_cache": "same", "on_cpu": False}
        weights = {costs.training_bytes(**training).weights, costs.sampling_bytes(**sampling).weights}
        fault, cure = f"says {weights} for {config.parameter_count()} weights", "Float32 weights take 4 bytes each"
        require(weights == {4 * config.parameter_count()}, part, "asked for the bytes of its weights", fault, cure)
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
            grows = values[0] > 0 and all(less < more for less, more in pairwise(values))
            require(
                grows, part, f"asked for {name} of more and more work", f"says {values}", "Costs are above 0 and rise with work"
            )

    def test_it_is_sampled_in_what_it_says(self, part: ModelFamily) -> None:
        import torch

        from rarkit.sampling.generation import generate

        for precision, dtype in MODEL_DTYPES.items():
            for cache in ("same", "float8"):
                model = self._model(part).to(getattr(torch, dtype))
                layout = {"int8": precision == "int8", "float8_cache": cache == "float8"}
                given = f"sampled with sample.precision = {precision!r} and kv_cache = {cache!r}"
                if precision in part.precisions and cache in part.kv_caches:
                    with trying(part, given, "Correct it, or leave it out of precisions and kv_caches"):
                        drawn_BL = generate(model.prepare(**layout), [0, 1], order=self._batch().orders_BL[0])
                    inside = ((drawn_BL >= 0) & (drawn_BL < self.codebook_size)).all()
                    require(
                        inside, part, given, "draws tokens outside the codebook", "A decoder gives logits of the codebook alone"
                    )
                elif any(layout.values()):
                    refused = refuses((UserError, CapabilityError), model.prepare, **layout)
                    cure = "Raise CapabilityError in prepare, or add it to precisions and kv_caches"
                    require(refused, part, given, "accepts it, although it is not in precisions or kv_caches", cure)

    def test_it_takes_its_own_schedule(self, part: ModelFamily) -> None:
        schedule = part.default_schedule()
        with trying(
            part, f"given its default schedule, {schedule!r}", "default_schedule returns a schedule that check_schedule takes"
        ):
            part.check_schedule(schedule)

    def test_it_can_be_rehearsed(self, part: ModelFamily) -> None:
        with trying(part, "rehearsed"):
            small = part.model_copy(update={"weights": "nowhere.safetensors"}).rehearsed()
        cure = "Set weights to None in rehearsed(), because rehearsals use random weights"
        require(small.weights is None, part, "rehearsed", "still has weights", cure)
        shape = tuple(self._logits(small, self._model(small), self._batch(), "rehearsed").shape)
        expected = BATCH, GRIDS[0][0] * GRIDS[0][1], self.codebook_size
        require(shape == expected, part, "rehearsed", f"gives logits {shape}", f"They are {expected}")
