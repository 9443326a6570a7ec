"""Pre-tokenized JSON lines, in and out."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from typer.testing import CliRunner

from rarkit import load_recipe, plan, run
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import output_at
from rarkit.cache.token_lines import export_tokens, import_tokens
from rarkit.cli import app
from rarkit.errors import DatasetError, IncompleteError, RecipeError

SHAPE = {"grid": (2, 3), "codebook_size": 16, "num_classes": 10}


def lines_of(count, seed=0):
    generator = np.random.default_rng(seed)
    return [{"class_id": int(generator.integers(10)), "tokens": generator.integers(0, 16, 6).tolist()} for _ in range(count)]


@pytest.fixture
def write(tmp_path):
    def _write(records, name="tokens.jsonl"):
        text = "".join(json.dumps(record) + "\n" for record in records)
        opener = gzip.open if name.endswith(".gz") else open
        with opener(tmp_path / name, "wt") as file:
            file.write(text)
        return str(tmp_path / name)

    return _write


@pytest.mark.parametrize("name", ["tokens.jsonl", "tokens.jsonl.gz"])
def test_there_and_back(write, tmp_path, name):
    records = lines_of(1000)
    assert import_tokens(write(records, name), str(tmp_path / "store"), **SHAPE) == 1000
    reader = RowReader(output_at(str(tmp_path / "store"), "tokenize"), "train_tokens")
    np.testing.assert_array_equal(reader.rows([999, 0]), [records[999]["tokens"], records[0]["tokens"]])
    assert export_tokens(str(tmp_path / "store"), str(tmp_path / f"back-{name}")) == 1000
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / f"back-{name}", "rt") as file:
        assert [json.loads(line) for line in file] == records


def test_a_dash_is_stdout(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    import_tokens(write(lines_of(3)), "store", **SHAPE)
    CliRunner().invoke(app, ["tokens", "export", "store", "kept.jsonl"])
    printed = CliRunner().invoke(app, ["tokens", "export", "store", "-"])
    assert printed.stdout == (tmp_path / "kept.jsonl").read_text()
    assert not (tmp_path / "-").exists()
    with pytest.raises(DatasetError, match="cannot be imported from stdin"):
        import_tokens("-", "other", **SHAPE)


def test_damaged_tokens_are_imported_again_not_forced(write, tmp_path):
    import_tokens(write(lines_of(3)), str(tmp_path / "store"), **SHAPE)
    next((tmp_path / "store").glob("train_tokens/c/0/0")).unlink()
    with pytest.raises(IncompleteError, match="Import its tokens again"):
        export_tokens(str(tmp_path / "store"), str(tmp_path / "lines.jsonl"))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("nonsense", "not a record"),
        ('{"class_id": 1}', "KeyError"),
        ('{"class_id": 1, "tokens": 3}', "TypeError"),
        ('{"class_id": 1, "tokens": [1, 2]}', "it has 2 tokens, and a grid of this size has 6"),
        ('{"class_id": 10, "tokens": [1, 2, 3, 4, 5, 6]}', "class_id 10 is not in 0 … 9"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 16]}', "tokens run from 1 to 16"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 0.5]}', "must be whole numbers"),
        ("", "not a record"),
    ],
)
def test_a_bad_line_is_named_by_number(tmp_path, bad, message):
    good = json.dumps(lines_of(1)[0])
    path = tmp_path / "tokens.jsonl"
    path.write_text("\n".join([good, good, bad, good]) + "\n")
    with pytest.raises(DatasetError, match=rf"tokens\.jsonl:3: .*{message}.*Each line must be"):
        import_tokens(str(path), str(tmp_path / "store"), **SHAPE)
    assert not output_at(str(tmp_path / "store"), "tokenize").record()["complete"]


def test_an_interrupted_import_goes_on(write, tmp_path):
    records = lines_of(700)
    broken = write([*records[:600], {"class_id": 1}, *records[601:]])
    with pytest.raises(DatasetError, match=":601:"):
        import_tokens(broken, str(tmp_path / "store"), **SHAPE)
    output = output_at(str(tmp_path / "store"), "tokenize")
    done = output.layout("train_tokens").blocks - len(output.missing_blocks(["train_tokens"]))
    assert done == 2
    import_tokens(write(records), str(tmp_path / "store"), **SHAPE)
    np.testing.assert_array_equal(output.read_array("train_tokens"), [record["tokens"] for record in records])


def test_memory_is_bounded_by_a_chunk(write, tmp_path):
    path = write(lines_of(40_000))
    tracemalloc.start()
    import_tokens(path, str(tmp_path / "store"), **SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The file is read in pieces of 4 MiB to be counted, two at a time; a chunk of 625 lines is small beside that.
    assert peak < 12 * 2**20


def test_a_missing_and_an_empty_file(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no .*nowhere\.jsonl"):
        import_tokens(str(tmp_path / "nowhere.jsonl"), str(tmp_path / "store"), **SHAPE)
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DatasetError, match="is empty"):
        import_tokens(str(tmp_path / "empty.jsonl"), str(tmp_path / "store"), **SHAPE)


def test_a_recipe_trains_on_imported_tokens_as_on_its_own(finished, digits_recipe, short_overrides, tmp_path):
    own = finished.plan["tokenize"].output
    store = f"{finished.plan.store.root}/tokenize/{own.fingerprint}"
    assert export_tokens(store, str(tmp_path / "tokens.jsonl")) == own.layout("train_tokens").shape[0]
    import_tokens(str(tmp_path / "tokens.jsonl"), str(tmp_path / "imported"), grid=(4, 4), codebook_size=16, num_classes=10)
    recipe = load_recipe(digits_recipe, [*short_overrides, f"train.tokens={tmp_path / 'imported'}"])
    done = run(recipe, str(tmp_path / "store"), device="cpu", until="train", runs=tmp_path / "runs", quiet=True)
    assert done.plan["train"].output.read_file("model.safetensors") == finished.plan["train"].output.read_file("model.safetensors")
    wrong = load_recipe(digits_recipe, [*short_overrides, f"train.tokens={tmp_path / 'imported'}", "tokenizer.codes=17"])
    with pytest.raises(RecipeError, match=r"codebook of 16, but the recipe's tokenizer gives .* from a codebook of 17"):
        plan(wrong, str(tmp_path / "store"))
    absent = load_recipe(digits_recipe, [*short_overrides, "train.tokens=nowhere"])
    with pytest.raises(DatasetError, match="Create them with rarkit tokens import"):
        run(absent, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"class_id": 1, "tokens": [3, 2]}\n' * 2, encoding="utf-8-sig")
    imported = (str(tmp_path / "lines.jsonl"), str(tmp_path / "tokens"))
    assert import_tokens(*imported, grid=(1, 2), codebook_size=4, num_classes=2) == 2
