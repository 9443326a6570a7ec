"""Pre-tokenized JSON lines, in and out."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import fsspec
import numpy as np
import pytest
from typer.testing import CliRunner

from rarkit import load_recipe, plan, run
from rarkit.cache import token_records
from rarkit.cache.row_reader import RowReader
from rarkit.cache.store import output_at
from rarkit.cache.token_lines import export_tokens, import_tokens
from rarkit.cache.token_records import TokenFile
from rarkit.cli.app import app
from rarkit.errors import DatasetError, IncompleteError, RecipeError
from rarkit.files import archives

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


@pytest.mark.parametrize("as_array", [False, True])
def test_records_with_far_more_in_them_than_tokens_are_refused(tmp_path, monkeypatch, as_array):
    """All records of a chunk are in memory at once."""
    monkeypatch.setattr(token_records, "MOST_AT_ONCE", 100_000)
    records = [{**record, "more": "0" * 30_000} for record in lines_of(10)]
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(records) if as_array else "\n".join(map(json.dumps, records)))
    with pytest.raises(DatasetError, match=r"4: this and the 3 records before it have more than 100,000 bytes"):
        import_tokens(str(path), str(tmp_path / "store"), **SHAPE)


def test_nothing_but_tokens_is_kept_of_a_record(tmp_path):
    (tmp_path / "tokens.json").write_text(json.dumps([{**lines_of(1)[0], "more": list(range(1000))}]))
    [record] = TokenFile(str(tmp_path / "tokens.json")).records()
    assert (record.data, record.size > 4000) == (lines_of(1)[0], True)


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
        ('{"class_id": 1}', r"not a record \(tokens: Field required"),
        ('{"class_id": 1, "tokens": 3}', r"not a record \(tokens: Input should be a valid array"),
        ('{"class_id": true, "tokens": [1, 2, 3, 4, 5, 6]}', "class_id: Input should be a valid integer"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, -6]}', r"tokens\.5: Input should be greater than or equal to 0"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 1' + "0" * 4000 + "]}", r"tokens\.5: "),
        ('{"class_id": 1' + "0" * 5000 + "}", "not a record"),
        ("[" * 100_000, "recursion limit"),
        ("[]", "not a record"),
        ('{"class_id": 1, "tokens": [1, 2]}', "it has 2 tokens, and a grid of this size has 6"),
        ('{"class_id": 10, "tokens": [1, 2, 3, 4, 5, 6]}', "class_id 10 is not in 0 … 9"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 16]}', "tokens run from 1 to 16"),
        ('{"class_id": 1, "tokens": [1, 2, 3, 4, 5, 0.5]}', "Input should be a valid integer"),
    ],
)
def test_a_bad_line_is_named_by_number(tmp_path, bad, message):
    good = json.dumps(lines_of(1)[0])
    path = tmp_path / "tokens.jsonl"
    path.write_text("\n".join([good, good, bad, good]) + "\n")
    with pytest.raises(DatasetError, match=rf"tokens\.jsonl:3: .*{message}.*Each line must be"):
        import_tokens(str(path), str(tmp_path / "store"), **SHAPE)
    assert not output_at(str(tmp_path / "store"), "tokenize").record().complete


def as_array(records, layout):
    """JSON as ``json.dump`` writes it, or as tightly or as loosely as it may be written."""
    if layout == "loose":
        return "\ufeff\n [ " + " ,\n\t".join(json.dumps(record, indent=1) for record in records) + "\n ]\r\n \n"
    return json.dumps(records, separators=(",", ":") if layout == "tight" else None)


@pytest.mark.parametrize("layout", ["usual", "tight", "loose"])
@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_an_array_holds_the_records_of_a_rank(tmp_path, monkeypatch, layout, piece):
    monkeypatch.setattr(token_records, "PIECE", piece)
    records = lines_of(9)
    (tmp_path / "rank.json").write_text(as_array(records, layout), encoding="utf-8")
    file = TokenFile(str(tmp_path / "rank.json"))
    file.is_array = True  # The beginning is too short to tell by, in this test's pieces.
    assert [(record.number, record.value().model_dump()) for record in file.records()] == list(enumerate(records, 1))
    assert file.count() == 9


def test_several_files_and_patterns_are_read_in_natural_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = lines_of(30)
    for rank, name in enumerate(("pretokenized_0.json", "pretokenized_2.json.gz", "pretokenized_10.json")):
        text = as_array(records[10 * rank : 10 * rank + 10], "usual")
        with (gzip.open if name.endswith(".gz") else open)(name, "wt") as file:
            file.write(text)
    more = lines_of(5, seed=1)
    # Blank lines, Windows' ends of lines, and none at the end of the last line.
    Path("a[1].jsonl").write_text("\n" + "\r\n\n".join(json.dumps(record) for record in more), newline="")
    result = CliRunner().invoke(
        app,
        ["tokens", "import", "pretokenized_*", "a[1].jsonl", "store", "--grid", "2x3", "--codebook-size", "16", "--classes", "10"],
    )
    assert "35 images of 6 tokens in store" in result.stdout
    output = output_at("store", "tokenize")
    np.testing.assert_array_equal(output.read_array("train_tokens"), [record["tokens"] for record in records + more])
    np.testing.assert_array_equal(output.read_array("train_labels"), [record["class_id"] for record in records + more])
    names = ["pretokenized_0.json", "pretokenized_2.json.gz", "pretokenized_10.json", "a[1].jsonl"]
    assert output.record().identity["imported"] == names
    with pytest.raises(DatasetError, match=r"no file matches none_\*\.json"):
        import_tokens(["pretokenized_0.json", "none_*.json"], "other", **SHAPE)
    with pytest.raises(DatasetError, match=r"pretokenized_0\.json is named twice"):
        import_tokens(["pretokenized_*", "pretokenized_0.json"], str(tmp_path / "other"), **SHAPE)
    assert not Path("other").exists()


def test_patterns_reach_other_file_systems():
    records = lines_of(4)
    memory = fsspec.filesystem("memory")
    for index in range(2):
        memory.pipe_file(f"/ranks/{index}.json", json.dumps(records[2 * index : 2 * index + 2]).encode())
    assert import_tokens("memory://ranks/*.json", "memory://imported", **SHAPE) == 4
    tokens = output_at("memory://imported", "tokenize").read_array("train_tokens")
    np.testing.assert_array_equal(tokens, [record["tokens"] for record in records])


GOOD = json.dumps({"class_id": 1, "tokens": [1, 2, 3, 4, 5, 6]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"[{GOOD}, {GOOD}", "record 2 of its JSON array is not followed by a comma or the end"),
        (f"[{GOOD}, {GOOD[:20]}", "record 2 of its JSON array is not JSON, or ends too early"),
        (f"[{GOOD}, nonsense]", "record 2 of its JSON array is not JSON"),
        (f"[{GOOD} {GOOD}]", "record 1 of its JSON array is not followed by a comma"),
        (f"[{GOOD}]{GOOD}", "record 1 of its JSON array is the last of the array, but there is more after it"),
        (f'[{GOOD}, {{"class_id": 1}}]', r"bad\.json, record 2: not a record \(tokens: Field required.*Each record must be"),
        (f"[{GOOD}, 3]", r"record 2: not a record \(Input should be a valid dictionary"),
        (f"[{GOOD}, " + "[" * 100_000, "record 2 of its JSON array is nested too deep"),
        ("[]", "is empty"),
        (" \n\n", "is empty"),
    ],
)
def test_a_bad_array_is_refused_for_what_it_is(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DatasetError, match=message):
        import_tokens(str(tmp_path / "bad.json"), str(tmp_path / "store"), **SHAPE)


def test_an_interrupted_import_goes_on(write, tmp_path):
    records = lines_of(700)
    broken = write([*records[:600], {"class_id": 1}, *records[601:]])
    with pytest.raises(DatasetError, match=":601:"):
        import_tokens(broken, str(tmp_path / "store"), **SHAPE)
    output = output_at(str(tmp_path / "store"), "tokenize")
    done = output.layout("train_tokens").blocks - len(output.missing_blocks(["train_tokens"]))
    assert done == 2
    first = Path(output.path, "train_tokens/c/0/0")
    written = first.stat().st_mtime_ns
    import_tokens(write(records), str(tmp_path / "store"), **SHAPE)
    np.testing.assert_array_equal(output.read_array("train_tokens"), [record["tokens"] for record in records])
    assert first.stat().st_mtime_ns == written


def test_an_interrupted_import_of_other_records_keeps_none_of_them(write, tmp_path):
    """As many records, under the same name."""
    records = lines_of(700)
    with pytest.raises(DatasetError, match=":601:"):
        import_tokens(write([*records[:600], {"class_id": 1}, *records[601:]]), str(tmp_path / "store"), **SHAPE)
    others = [records[-1], *records[1:]]
    import_tokens(write(others), str(tmp_path / "store"), **SHAPE)
    stored = output_at(str(tmp_path / "store"), "tokenize").read_array("train_tokens")
    np.testing.assert_array_equal(stored, [record["tokens"] for record in others])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"class_id": 1}\n' * 2**16, mtime=0)[:-9], "is cut off, or not compressed as its name says"),
        ("a.jsonl.gz", b'{"class_id": 1}\n', "is cut off, or not compressed as its name says"),
        ("a.json", b'[{"class_id": "\xff"}]', "is not text in UTF-8"),
    ],
)
def test_content_that_is_broken_is_no_trouble_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        import_tokens(str(tmp_path / name), str(tmp_path / "store"), **SHAPE)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", lambda most: b" " * (most + 1) + b"\n", ":1: there is no record within"),
        ("a.jsonl.gz", lambda most: GOOD.encode() + b"\n" * (most + 2), "there is no record within"),
        ("a.jsonl.gz", lambda most: b'{"class_id": 1, "tokens": [' + b"1," * most, ":1: there is no record within"),
        ("a.json.gz", lambda most: b"[" + b" " * 2 * most, "more than 2,000 characters of white space"),
        ("a.json.gz", lambda most: b"[" + b'{"class_id": "' + b"1" * 2 * most, "record 1 of its JSON array is not JSON"),
    ],
)
def test_what_a_small_file_expands_to_is_bounded(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setattr(token_records, "PIECE", 100)
    monkeypatch.setattr(token_records, "LONGEST", 2000)
    (tmp_path / name).write_bytes(gzip.compress(content(2000)))
    with pytest.raises(DatasetError, match=message):
        import_tokens(str(tmp_path / name), str(tmp_path / "store"), **SHAPE)


@pytest.mark.parametrize("kind", ["lines", "array"])
def test_memory_is_bounded_by_a_chunk(write, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(token_records, "PIECE", 2**17)
    records = lines_of(8_000)
    path = write(records)
    if kind == "array":
        Path(path).write_text(json.dumps(records))
    del records
    # What is imported on first use is not counted.
    import_tokens(path, str(tmp_path / "first"), **SHAPE)
    tracemalloc.start()
    import_tokens(path, str(tmp_path / "store"), **SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All records take 4 MB; a chunk of 250 is small beside the pieces of 128 KiB in which an array is read, a few at a time.
    assert peak < 2 * 2**20


def test_a_missing_and_an_empty_file(tmp_path):
    with pytest.raises(DatasetError, match=r"there is no .*nowhere\.jsonl"):
        import_tokens(str(tmp_path / "nowhere.jsonl"), str(tmp_path / "store"), **SHAPE)
    with pytest.raises(DatasetError, match="there is no file to import"):
        import_tokens([], str(tmp_path / "store"), **SHAPE)
    assert not (tmp_path / "store").exists()
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
    for place, told in (("nowhere", "there is none"), (tmp_path / "tokens.jsonl", "tokens.jsonl is a file, where the folder")):
        absent = load_recipe(digits_recipe, [*short_overrides, f"train.tokens={place}"])
        with pytest.raises(DatasetError, match=rf"{told}.* Create a token store with rarkit tokens import"):
            run(absent, str(tmp_path / "store"), device="cpu", runs=tmp_path / "runs", quiet=True)


@pytest.mark.parametrize("noted", [True, False])
def test_class_ids_that_the_dataset_lacks_are_refused_before_training(noted, digits_recipe, tmp_path):
    """One more than the last label is how a model is told of no class: training on it would go through."""
    lines, tokens = tmp_path / "tokens.jsonl", str(tmp_path / "tokens")
    lines.write_text("".join(json.dumps({"class_id": label, "tokens": [0] * 16}) + "\n" for label in (3, 10, 9)))
    import_tokens(str(lines), tokens, grid=(4, 4), codebook_size=128, num_classes=1000)
    output = output_at(tokens, "tokenize")
    assert output.begun().classes == 11
    if not noted:
        output._folder.write_record(output.begun().changed(classes=None))
    recipe = load_recipe(digits_recipe, [f"train.tokens={tokens}", "tokenizer.codes=128"])
    with pytest.raises(RecipeError, match=r"class ids up to 10, but the classes of the recipe's dataset are 0 to 9\."):
        plan(recipe, str(tmp_path / "store"))


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path):
    (tmp_path / "lines.jsonl").write_text('{"class_id": 1, "tokens": [3, 2]}\n' * 2, encoding="utf-8-sig")
    imported = (str(tmp_path / "lines.jsonl"), str(tmp_path / "tokens"))
    assert import_tokens(*imported, grid=(1, 2), codebook_size=4, num_classes=2) == 2


def test_records_that_expand_a_thousandfold_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST_UNSEEN", 2**20)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(GOOD.encode() + b"\n" + (GOOD.encode() + b"\n") * 200_000))
    with pytest.raises(DatasetError, match=r"a\.jsonl\.gz expands from [\d,]+ bytes to more than"):
        import_tokens(str(tmp_path / "a.jsonl.gz"), str(tmp_path / "store"), **SHAPE)
    assert not (tmp_path / "store").exists()
