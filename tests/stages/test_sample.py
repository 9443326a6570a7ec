"""The sample stage: bounded chunks, decoding in the background, the same bits after any interruption."""

from __future__ import annotations

import shutil
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit import load_recipe, run
from rarkit.cache.output import StageOutput
from rarkit.models.rar.transformer import OrderedTransformer
from rarkit.stages.sample import sample_rows, stretches
from rarkit.tokenizers.patch_kmeans import _PatchModel

IMAGE = 256 * 256 * 3


@given(count=st.integers(1, 60_000), row_bytes=st.integers(1, 4 * IMAGE), batch_size=st.integers(1, 1024))
def test_chunks_are_bounded_and_batches_are_full(count, row_bytes, batch_size):
    rows = sample_rows(count, row_bytes, batch_size)
    assert rows == 1 or rows * row_bytes <= 16 * 2**20
    cut = stretches(count, rows, batch_size)
    batches = [batch for stretch in cut for batch in stretch.batches(batch_size)]
    assert [row for start, stop in batches for row in range(start, stop)] == list(range(count))
    assert [block for stretch in cut for block in stretch.blocks] == list(range(-(-count // rows)))
    for stretch in cut:
        assert (stretch.start, stretch.stop) == (stretch.blocks.start * rows, min(stretch.blocks.stop * rows, count))
    sizes = [stop - start for start, stop in batches]
    # All batches but the last are of one size, more than half of batch_size.
    assert len(set(sizes[:-1])) <= 1
    assert max(sizes) <= batch_size
    assert len(sizes) == 1 or (2 * sizes[0] > batch_size or rows == 1)


def test_fifty_thousand_pictures_of_imagenet():
    for batch_size, rows, blocks in ((32, 64, 1), (64, 64, 1), (100, 50, 2), (256, 64, 4), (250, 83, 3)):
        assert sample_rows(50_000, IMAGE, batch_size) == rows
        assert len(stretches(50_000, rows, batch_size)[0].blocks) == blocks


# Thirty chunks of ten samples, four to a batch


@pytest.fixture
def cut(monkeypatch):
    monkeypatch.setattr("rarkit.stages.sample.rows_per_block", lambda count, row_bytes: 10)


@pytest.fixture
def draw(finished, digits_recipe, short_overrides, tmp_path):
    """Runs the sample stage in a store that has the output of all stages before it."""

    def draw(name="store", *overrides):
        store = tmp_path / name
        if not store.exists():
            shutil.copytree(finished.plan.store.root, store)
            shutil.rmtree(store / "sample")
        recipe = load_recipe(digits_recipe, [*short_overrides, "sample.batch_size=40", *overrides])
        return run(recipe, str(store), until="sample", device="cpu", runs=tmp_path, quiet=True).plan["sample"].output

    return draw


@pytest.mark.parametrize(
    ("precision", "kv_cache"), [("bfloat16", "same"), ("int8", "same"), ("float32", "float8"), ("int8", "float8")]
)
def test_recipes_choose_precision_and_cache(draw, monkeypatch, precision, kv_cache):
    calls, prepare = [], OrderedTransformer.prepare

    def spy(model, **kwargs):
        calls.append((str(model.cls_token.dtype), kwargs))
        return prepare(model, **kwargs)

    monkeypatch.setattr(OrderedTransformer, "prepare", spy)
    output = draw("store", f"sample.precision={precision}", f"sample.kv_cache={kv_cache}")
    dtype = "torch.float32" if precision == "float32" else "torch.bfloat16"
    assert calls == [(dtype, {"int8": precision == "int8", "float8_cache": kv_cache == "float8"})]
    tokens_ML = output.read_array("tokens")
    assert tokens_ML.shape == (300, 16)
    assert len(np.unique(tokens_ML)) > 8


@pytest.fixture
def generated(monkeypatch):
    """The sample indices of each batch generated so far."""
    from rarkit.sampling import generation

    plain, batches = generation.generate, []

    def generate(*args, **kwargs):
        batches.append(kwargs["indices"].tolist())
        return plain(*args, **kwargs)

    monkeypatch.setattr(generation, "generate", generate)
    return batches


def test_few_chunks_are_in_flight(cut, draw, generated, monkeypatch):
    plain, written, flight = StageOutput.write_block, [], []

    def write_block(self, block, **rows):
        # Slower than generation, so that an unbounded queue would fill.
        time.sleep(0.05)
        plain(self, block, **rows)
        written.append(block)
        flight.append(4 * len(generated) - len(written))

    monkeypatch.setattr(StageOutput, "write_block", write_block)
    assert draw().layout("images").rows == 10
    assert written == list(range(30))
    # One batch waits, one was generated meanwhile, and one is being generated; without a bound it would be 29.
    assert 4 < max(flight) <= 12


def test_a_failure_to_decode_stops_generation_at_its_next_step(cut, draw, monkeypatch):
    from rarkit.sampling import generation

    plain, batches, steps, decoders = generation.generate, [], [], []
    plain_decode = _PatchModel.decode

    def decode(self, codes_BHW):
        if threading.current_thread() is threading.main_thread():
            return plain_decode(self, codes_BHW)
        decoders.append(threading.current_thread())
        raise MemoryError("no room for pictures")

    def generate(*args, on_step, **kwargs):
        batches.append(kwargs["indices"])

        def check(step, tokens_BL):
            if len(batches) == 2:
                while not decoders:
                    time.sleep(0.001)
                decoders[0].join(10)
                steps.append(step)
            on_step(step, tokens_BL)

        return plain(*args, on_step=check, **kwargs)

    monkeypatch.setattr(_PatchModel, "decode", decode)
    monkeypatch.setattr(generation, "generate", generate)
    with pytest.raises(MemoryError, match="no room for pictures"):
        draw()
    assert (len(batches), steps) in ((2, [0]), (1, []))


def test_an_interrupted_stretch_is_drawn_again_in_the_same_batches(cut, draw, generated, monkeypatch):
    whole = draw("whole")
    everything, plain = list(generated), StageOutput.write_block

    def write_block(self, block, **rows):
        if block == 6:
            raise OSError("the network is gone")
        plain(self, block, **rows)

    with monkeypatch.context() as spoiled:
        spoiled.setattr(StageOutput, "write_block", write_block)
        with pytest.raises(OSError, match="the network is gone"):
            draw()
    generated.clear()
    # A newer version may choose other chunks, but finishes an output with those it was begun with.
    monkeypatch.setattr("rarkit.stages.sample.rows_per_block", lambda count, row_bytes: 100)
    written = []
    monkeypatch.setattr(StageOutput, "write_block", lambda self, block, **rows: (written.append(block), plain(self, block, **rows)))
    again = draw()
    assert written == list(range(6, 30))
    assert generated == everything[1:]
    for name in ("tokens", "labels", "images"):
        assert again.layout(name).rows == 10
        np.testing.assert_array_equal(again.read_array(name), whole.read_array(name))
