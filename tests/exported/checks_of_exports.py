"""Runs where transformers is installed and rarkit is not: what an export computes is what rarkit computed (``expectations.py``).

``RARKIT_EXPORTS`` names a folder of exports, each with its expectations beside it in ``<name>.safetensors``.

Shape letters: B batch, S ids of a sequence, L codes of an image, V codebook size.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache
from transformers.modeling_outputs import CausalLMOutputWithPast

EXPORTS = Path(os.environ["RARKIT_EXPORTS"])
NAMES = sorted(path.name for path in EXPORTS.iterdir() if path.is_dir())
assert NAMES, f"there are no exports in {EXPORTS}"
GUIDANCE: dict[str, dict[str, float]] = {"none": {}, "constant": {"scale": 3.0}, "power_cosine": {"scale": 4.0, "power": 1.5}}
CHOICE = {"temperature": 0.8, "top_k": 7, "top_p": 0.9}
TOLERANCE = 1e-5
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"


@dataclass(frozen=True)
class Export:
    folder: Path
    model: Any
    expected: dict[str, Tensor]

    @property
    def start_BS(self) -> Tensor:
        return self.model.prompt(self.expected["labels"])

    @property
    def ids_BS(self) -> Tensor:
        """The prompts, and then the tokens in visiting order."""
        return torch.cat([self.start_BS, self.expected["tokens"][:, self.expected["order"]]], dim=1)

    def guidance(self, name: str) -> Any:
        return self.model.guidance(**GUIDANCE[name]) if GUIDANCE[name] else None

    def logits(self, ids_BS: Tensor, **arguments: Any) -> Tensor:
        """Logits of the codes of whole sequences: (B, L, V)."""
        return self.model(ids_BS, **arguments).logits[:, self.model.prompt_length - 1 : -1]


@pytest.fixture(scope="module", params=NAMES)
def export(request: pytest.FixtureRequest) -> Export:
    folder = EXPORTS / request.param
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    return Export(folder, model, load_file(EXPORTS / f"{request.param}.safetensors"))


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.skipif("RARKIT_IS_HERE" in os.environ, reason="rarkit's own tests run this too")
def test_rarkit_is_not_here() -> None:
    assert find_spec("rarkit") is None


def test_logits(export: Export) -> None:
    assert torch.equal(export.model.scan_order_L, export.expected["order"])
    logits_BLV = export.logits(export.ids_BS)
    torch.testing.assert_close(logits_BLV, export.expected["logits"], atol=TOLERANCE, rtol=0)
    ids_BS = export.ids_BS
    ids_BS[:, export.model.prompt_length - 1] = export.model.no_class_id
    torch.testing.assert_close(export.logits(ids_BS), export.expected["unconditional"], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    "labels", [[1.5], [True, 1], ["1"], None, [-1], [10], [0, 2**40], [2**70], torch.tensor([1.0]), []], ids=str
)
def test_what_names_no_class_is_refused(export: Export, labels: Any) -> None:
    assert export.model.config.num_classes == 10
    with pytest.raises(ValueError, match="labels are .* classes (are )?0 … 9"):
        export.model.prompt(labels)


@pytest.mark.parametrize("labels", [[0, 9], (0, 9), torch.tensor([0, 9], dtype=torch.int32)], ids=str)
def test_labels_are_whole_numbers(export: Export, labels: Any) -> None:
    assert torch.equal(export.model.prompt(labels)[:, -1], export.model.no_class_id - 10 + torch.tensor([0, 9]))


def test_a_prompt_has_a_class(export: Export) -> None:
    model = export.model
    for wrong in (0, model.no_class_id - 11, model.no_class_id + 1, -1):
        start_BS = model.prompt([1])
        start_BS[:, -1] = wrong
        for ids_BS in (start_BS, start_BS[:, -1:], torch.cat([start_BS, torch.zeros_like(start_BS)], dim=1)):
            with pytest.raises(ValueError, match=f"id {wrong} is in the place of the class"):
                model.generate(ids_BS)
    for nothing in ([[1, 2]], torch.zeros(1, 2), torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"pass model\.prompt\(labels\)"):
            model.generate(nothing)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e7, True, "3", [3.0]], ids=str)
def test_guidance_is_a_number_from_zero(export: Export, value: Any) -> None:
    with pytest.raises(ValueError, match="scale is .*; it must be a number from 0 to 1,000,000"):
        export.model.guidance(scale=value)
    with pytest.raises(ValueError, match="power is .*; it must be a number from 0 to 1,000,000"):
        export.model.guidance(scale=3.0, power=value)


def test_loss_is_that_of_the_codes(export: Export) -> None:
    loss = export.model(export.ids_BS, labels=export.ids_BS).loss
    targets_BL = export.expected["tokens"][:, export.expected["order"]]
    expected = torch.nn.functional.cross_entropy(export.expected["logits"].flatten(0, 1), targets_BL.flatten())
    torch.testing.assert_close(loss, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pieces", [(2, 1, 1), (2, 3, 4), (5, 1)])
@pytest.mark.parametrize("static", [False, True])
def test_logits_in_pieces(export: Export, pieces: tuple[int, ...], static: bool) -> None:
    """With a cache, given as whoever calls the model step by step gives it."""
    ids_BS, seen, parts, cache = export.ids_BS, 0, [], None
    if static:
        cache = _static(export)
    for piece in pieces:
        output = export.model(ids_BS[:, seen : seen + piece], use_cache=True, **{CACHE: cache})
        cache, seen = output[CACHE], seen + piece
        parts.append(output.logits)
    first = export.model.prompt_length - 1
    found_BLV = torch.cat(parts, dim=1)[:, first:]
    torch.testing.assert_close(found_BLV, export.expected["logits"][:, : found_BLV.shape[1]], atol=TOLERANCE, rtol=0)


def _static(export: Export) -> StaticCache:
    length, batch = export.ids_BS.shape[1], len(export.ids_BS)
    try:
        return StaticCache(export.model.config, max_cache_len=length)
    except (TypeError, ValueError):  # older ones take the batch too
        return StaticCache(export.model.config, batch, length, export.model.device, torch.float32)


@pytest.mark.parametrize("name", GUIDANCE)
@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_greedy_decoding(export: Export, name: str, cache: str) -> None:
    settings = {"cache_implementation": "static"} if cache == "static" else {CACHE: DynamicCache()}
    ids_BS = export.model.generate(export.start_BS, do_sample=False, logits_processor=export.guidance(name), **settings)
    assert torch.equal(export.model.grids(ids_BS).flatten(1), export.expected[f"greedy {name}"])


def test_greedy_decoding_otherwise(export: Export) -> None:
    """Without a cache, from ids of classes alone, and with transformers' own guidance."""
    ids_BS = export.model.generate(export.start_BS, do_sample=False, use_cache=False)
    assert torch.equal(export.model.grids(ids_BS).flatten(1), export.expected["greedy none"])
    ids_BS = export.model.generate(export.start_BS[:, -1:], do_sample=False)
    assert torch.equal(export.model.grids(ids_BS).flatten(1), export.expected["greedy none"])
    negative_BS = export.start_BS
    negative_BS[:, -1] = export.model.no_class_id
    ids_BS = export.model.generate(export.start_BS, do_sample=False, guidance_scale=3.0, negative_prompt_ids=negative_BS)
    assert torch.equal(export.model.grids(ids_BS).flatten(1), export.expected["greedy constant"])


def test_a_guidance_processor_serves_several_batches(export: Export) -> None:
    guidance = export.guidance("power_cosine")
    first_BS, second_BS = (export.model.generate(export.start_BS, do_sample=False, logits_processor=guidance) for _ in range(2))
    assert torch.equal(first_BS, second_BS)
    last_BS = export.model.generate(export.start_BS[-1:], do_sample=False, logits_processor=guidance)
    assert torch.equal(last_BS[0], first_BS[-1])


@pytest.mark.parametrize("name", GUIDANCE)
def test_tokens_are_drawn_from_the_same_distribution(export: Export, name: str) -> None:
    """At every step of given sequences, after guidance, temperature, top-k and top-p."""
    taken: list[Tensor] = []

    ids_BS, prompt = export.ids_BS, export.model.prompt_length
    for count in _some(ids_BS.shape[1] - prompt):
        length = prompt + count
        output = export.model.generate(
            ids_BS[:, :length],
            do_sample=True,
            max_length=length + 1,
            logits_processor=export.guidance(name),
            output_scores=True,
            return_dict_in_generate=True,
            **CHOICE,
        )
        taken.append(output.scores[0].softmax(-1))
    expected_BLV = export.expected[f"probabilities {name}"][:, _some(ids_BS.shape[1] - prompt)]
    torch.testing.assert_close(torch.stack(taken, dim=1).double(), expected_BLV, atol=TOLERANCE, rtol=0)


def _some(length: int) -> list[int]:
    """At most eight steps, with the first and the last."""
    return sorted({round(index * (length - 1) / 7) for index in range(8)})


def test_drawn_tokens_have_the_expected_frequencies(export: Export) -> None:
    """Pearson's χ² of the first token of 2,000 images of a class; a false alarm is as rare as 1 in 10,000."""
    torch.manual_seed(1)
    prompt = export.model.prompt_length
    ids_BS = export.start_BS[:1]
    settings = {"do_sample": True, "max_length": prompt + 1, "num_return_sequences": 2000}
    drawn_BS = export.model.generate(ids_BS, logits_processor=export.guidance("constant"), **settings, **CHOICE)
    probabilities_V = export.expected["probabilities constant"][0, 0]
    possible_V = probabilities_V > 0
    counts_V = drawn_BS[:, prompt].bincount(minlength=len(probabilities_V)).double()
    assert counts_V[~possible_V].sum() == 0
    expected_V = 2000 * probabilities_V[possible_V]
    chi_squared = ((counts_V[possible_V] - expected_V) ** 2 / expected_V).sum()
    # At most 7 tokens are possible: 6 degrees of freedom.
    assert chi_squared < 27.9


def test_beam_search_carries_guidance_along(export: Export) -> None:
    """Beams reorder the rows of caches: with and without a cache, the same beams win."""
    found = []
    for use_cache in (True, False):
        settings = {"num_beams": 3, "do_sample": False, "max_length": export.model.prompt_length + 4, "use_cache": use_cache}
        found.append(export.model.generate(export.start_BS, logits_processor=export.guidance("constant"), **settings))
    assert torch.equal(*found)


def test_images(export: Export) -> None:
    if export.model.config.image_decoder is None:
        with pytest.raises(ValueError, match="without an image decoder"):
            export.model.images(export.ids_BS)
        return
    assert torch.equal(export.model.images(export.ids_BS), export.expected["images"])
    images_BHWC = export.model.sample_images([0, 0, 1], scale=2.0)
    assert images_BHWC.shape == (3, *export.expected["images"].shape[1:])
    assert images_BHWC.dtype == torch.uint8


def test_saved_again(export: Export) -> None:
    """Beside the exports, for rarkit to read back."""
    folder = EXPORTS.with_name("again") / export.folder.name
    export.model.save_pretrained(folder)
    again = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
    before, after = export.model.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(again(export.ids_BS).logits, export.model(export.ids_BS).logits)
    if export.model.config.image_decoder is not None:
        assert torch.equal(again.images(export.ids_BS), export.expected["images"])


def test_bfloat16(export: Export) -> None:
    model = AutoModelForCausalLM.from_pretrained(export.folder, trust_remote_code=True, torch_dtype=torch.bfloat16).eval()
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert torch.equal(model.scan_order_L, export.expected["order"])
    logits_BLV = Export(export.folder, model, export.expected).logits(export.ids_BS).float()
    assert (logits_BLV - export.expected["logits"]).abs().max() < 0.05 * export.expected["logits"].abs().max()


def test_trained_by_their_trainer(export: Export, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainingArguments

    model = AutoModelForCausalLM.from_pretrained(export.folder, trust_remote_code=True)
    data = [{"input_ids": ids_S, "labels": ids_S} for ids_S in export.ids_BS]
    settings = {"per_device_train_batch_size": len(data), "learning_rate": 1e-2, "logging_steps": 1, "max_steps": 10}
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **settings)
    trainer = Trainer(model, arguments, train_dataset=data)
    with torch.enable_grad():
        trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert float(losses[-1]) < 0.9 * float(losses[0])


def test_what_is_refused(export: Export) -> None:
    model, ids_BS = export.model, export.ids_BS
    with pytest.raises(ValueError, match="the model's classes are"):
        model.prompt([model.config.num_classes])
    with pytest.raises(ValueError, match="no padding"):
        model(ids_BS, attention_mask=torch.zeros_like(ids_BS))
    with pytest.raises(ValueError, match="a finished one has"):
        model.grids(ids_BS[:, :-1])
    with pytest.raises(ValueError, match="needs a scale"):
        model.guidance(power=1.0)
    with pytest.raises(ValueError, match="nothing to start from"):
        model.generate()
    if model.prompt_length == 2:
        with pytest.raises(ValueError, match="RAR takes no output_attentions"):
            model(ids_BS, output_attentions=True)
        with pytest.raises(ValueError, match="leave out attn_implementation"):
            AutoModelForCausalLM.from_pretrained(export.folder, trust_remote_code=True, attn_implementation="eager")
        with pytest.raises(ValueError, match=r"begin with model\.prompt"):
            model(ids_BS[:, :1])
        cache = model(ids_BS[:, :4], use_cache=True)[CACHE]
        with pytest.raises(ValueError, match="pass class_ids"):
            model(ids_BS[:1, 4:5], **{CACHE: cache})
        with pytest.raises(ValueError, match="the sequence would have"):
            model(torch.cat([ids_BS, ids_BS[:, -1:]], dim=1))
