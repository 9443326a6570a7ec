"""Commands on receipts, locks, metrics and the like in which anything may stand: they end well, or with one message."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarkit.cache.holder import Holder
from rarkit.cache.lock import Times
from rarkit.cache.output_lock import OutputLock
from rarkit.cache.run_folders import RECEIPT
from rarkit.cache.store import Store
from rarkit.pipeline.kept_receipts import NUMBER
from rarkit.pipeline.run_folder import CLAIM
from rarkit.stages.evaluate import METRICS_FILE
from tests.mutations import mutated

HOLDER = Holder.this_process("a1", ["fit/cafe"]).as_json()
RUN = "run small.toml --store store --device cpu --no-wait"
PLAN = "plan small.toml --store store"
SAMPLE = "sample runs/small --class 0 --device cpu -o a.png"
LISTS = ("cache ls --store store", "cache verify evaluate --store store", "cache gc --store store")


def few(examples):
    return settings(max_examples=examples, suppress_health_check=list(HealthCheck))


@pytest.fixture
def place(rarkit, tmp_path, small_finished, small_recipe, monkeypatch):
    """A finished run in the working folder, and a function that runs a command there and looks at how it ends."""
    monkeypatch.setattr(OutputLock, "times", Times(poll=0.01, renew=5, hold=60, free=0.03))
    shutil.copy(small_recipe, tmp_path / "small.toml")
    shutil.copytree(small_finished.plan.store.root, tmp_path / "store")
    assert rarkit(*RUN.split())[0] == 0
    shutil.copy(tmp_path / f"runs/small/{RECEIPT}", tmp_path / "receipt.json")

    def ends_well(command):
        code, _, err = rarkit(*command.split())
        *_, message = err.rpartition("error: ")
        assert code in (0, 1, 2), err
        assert err.count("error: ") == (code == 2), err
        assert code != 2 or len(message.strip().splitlines()) <= 3, err
        return code, err

    return ends_well


def contents(path):
    return json.loads(Path(path).read_text())


@few(10)
@given(data=st.data())
def test_the_receipt_of_a_run(place, data):
    Path(f"runs/small/{RECEIPT}").write_bytes(data.draw(mutated(contents("receipt.json"))))
    place(SAMPLE)
    place("export runs/small --output a.safetensors")


@few(10)
@given(data=st.data())
def test_a_receipt_in_the_store(place, small_recipe, data):
    Path("store/receipts/odd.json").write_bytes(data.draw(mutated(contents("receipt.json"))))
    shutil.copy(small_recipe, "small.toml")
    for command in (*LISTS[::2], "cache rm receipts/odd --store store"):
        place(command)
    Path("small.toml").write_text(Path("small.toml").read_text().replace("steps = 6", "steps = 7"))
    code, err = place(PLAN)
    assert code == 0, err


@few(8)
@given(data=st.data())
def test_a_lock(place, data):
    [output] = Path("store/evaluate").iterdir()
    Path(output, "lock.json").write_bytes(data.draw(mutated(HOLDER)))
    for command in (PLAN, *LISTS):
        place(command)
    Path(output, "lock.json").unlink(missing_ok=True)


@few(8)
@given(data=st.data())
def test_metrics(place, data):
    """With the digest of what is there now, as one who means harm would write it."""
    [output] = Store("store").outputs("evaluate")
    kept = Path("metrics")
    if not kept.exists():
        kept.write_bytes(output.read_file(METRICS_FILE))
    content = data.draw(mutated(json.loads(kept.read_bytes())))
    Path(output.path, f"files/{METRICS_FILE}").write_bytes(content)
    sha256 = {METRICS_FILE: hashlib.sha256(content).hexdigest()}
    output._folder.write_record(output.record().changed(files={METRICS_FILE: len(content)}, sha256=sha256))
    Path(f"runs/small/{RECEIPT}").unlink(missing_ok=True)
    place(RUN)


@few(4)
@given(data=st.data())
def test_a_claim_and_the_number_of_a_folder_of_runs(place, data):
    Path(f"runs/small/{CLAIM}").write_bytes(data.draw(mutated({"file": "../small.toml", "overrides": []})))
    Path(f"runs/{NUMBER}").write_bytes(data.draw(st.binary(max_size=40)))
    place(RUN)
    place(LISTS[2])
