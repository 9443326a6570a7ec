"""What rarkit reads again of what was stored: within bounds, into a model, or one message of at most three lines."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from rarkit.cache.holder import Holder
from rarkit.cache.receipt_content import FORMAT, Receipt, Variant
from rarkit.errors import RecipeError, StoreError, UserError
from rarkit.evaluation.record import MetricRecord
from rarkit.files.stored_json import LARGEST, LONGEST_REASON, MOST_TABLES, JsonTable, parsed, read_json
from rarkit.stages.evaluate import _Numbers
from rarkit.stages.nearest_training_images import Nearest
from tests.mutations import mutated

HOLDER = Holder.this_process("a1", ["fit/cafe"]).as_json()
RECEIPT = {
    "format": FORMAT,
    "recipe_name": "small",
    "variant": {"file": "../small.toml", "overrides": ["seed=1"]},
    "folder": "/work/runs/small",
    "host": "here",
    "when": "2026-01-01T00:00:00+00:00",
    "process": HOLDER,
    "recipe": {"train": {"steps": 6}},
    "store": "file:///work/store",
    "images": {"height": 8, "width": 8, "channels": 1, "class_names": ["0", "1"]},
    "splits": ["train", "test"],
    "stages": [{"name": "fit", "fingerprint": "0a" * 10, "identity": {"version": 1, "rate": 0.5}, "upstream": {"fit": "cafe"}}],
    "weights": {"model": {"file": "a.bin", "sha256": "0" * 64}},
    "files": ["report.html", "samples.png"],
}
METRICS = {
    "metrics": [MetricRecord("recall", 0.9, 0.8, 1.0, "", "higher", "How many.", {"real": 1.0}).to_json()],
    "lacking": ["There is no batch."],
    "samples": 10,
    "nearest": {"searched": 5, "training_images": 9, "of_the_classes": True, "distances": {"samples": [[1.0, 2.0]]}},
}
KINDS = [(Receipt, RECEIPT), (Variant, RECEIPT["variant"]), (_Numbers, METRICS)]


@pytest.mark.parametrize(("model", "content"), KINDS, ids=lambda kind: getattr(kind, "__name__", ""))
def test_what_was_written_is_read(model, content):
    read = parsed(model, json.dumps(content).encode())
    assert parsed(model, json.dumps({**content, "of_a_newer_rarkit": [1]}).encode()) == read, "what is not known is passed over"


@pytest.mark.parametrize(("model", "content"), KINDS, ids=lambda kind: getattr(kind, "__name__", ""))
@given(data=st.data())
def test_what_is_odd_is_one_message(model, content, data):
    text = data.draw(mutated(content))
    try:
        read_json(model, text, "the file", "Write it again.", newest=FORMAT, raising=RecipeError)
    except RecipeError as error:
        message = str(error)
        assert message.startswith("the file ")
        assert message.endswith(("). Write it again.", ". Update rarkit."))
        assert message.isprintable(), "nothing that was found stands in it as it was"
        assert len(message) < LONGEST_REASON + 100


@given(text=mutated(HOLDER))
def test_a_lock_that_is_odd_can_be_told(text):
    holder = Holder.of(text)
    if holder is not None:
        assert "\n" not in str(holder)
        assert math.isfinite(holder.age)
        assert holder.runs_here() in (True, False, None)


class _Any(BaseModel):
    model_config = ConfigDict(strict=True)

    value: int = 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b" " * (LARGEST + 1), "it has more than 1,048,576 bytes"),
        (b'{"a":' * 300, "recursion limit exceeded"),
        (b'{"value": ' + b"9" * 10_000 + b"}", "out of range"),
        (b'{"value": true}', "value: Input should be a valid integer"),
        (b'{"value": 1.0}', "value: Input should be a valid integer"),
        (b'{"value": "1"}', "value: Input should be a valid integer"),
        (b'{"value": NaN}', "value: Input should be a valid integer"),
        (b"\xff\xfe{\x00}\x00", "Invalid JSON"),
        (b'"\\ud800"', "Invalid JSON"),
        (b"", "Invalid JSON"),
    ],
)
def test_the_reason_is_told(data, reason):
    with pytest.raises(ValueError, match=reason) as raised:
        parsed(_Any, data)
    assert len(str(raised.value)) <= LONGEST_REASON
    with pytest.raises(StoreError, match=r"^there is damaged \(.*\)\. Delete it\.$"):
        read_json(_Any, data, "there", "Delete it.")


@pytest.mark.parametrize("values", ["[]", '{"":1}'])
def test_few_bytes_that_become_much_in_memory_are_refused(values):
    data = f'{{"a": [{",".join([values] * (MOST_TABLES + 1))}{" " * LARGEST}]}}'.encode()
    with pytest.raises(ValueError, match="too many values"):
        parsed(JsonTable, data, len(data))
    assert parsed(JsonTable, f'{{"a": [{values}]}}'.encode()).root


def test_a_name_of_a_key_does_no_harm_in_a_message():
    with pytest.raises(ValueError, match=r"stages: Field required|weights.'\\x1b\[2J\\n'\.sha256"):
        parsed(Receipt, json.dumps({**RECEIPT, "weights": {"\x1b[2J\n": {"sha256": 1}}}).encode())


def test_a_newer_format_is_told_whatever_else_it_has():
    told = r"^there was written by a newer rarkit \(format 4; this one reads up to 3\)\. Update rarkit\.$"
    with pytest.raises(UserError, match=told):
        read_json(Receipt, b'{"format": 4, "stages": "otherwise"}', "there", "Delete it.", newest=FORMAT)


def test_the_distances_are_those_of_samples():
    with pytest.raises(ValueError, match="there are no distances of samples"):
        parsed(Nearest, json.dumps({**METRICS["nearest"], "distances": {"held_out": [[1.0]]}}).encode())
