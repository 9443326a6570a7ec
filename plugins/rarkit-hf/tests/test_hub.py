"""Data sets on the Hugging Face hub, by a stand-in of it on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

from animals import made
from hub_stand_in import COMMIT, serving

READ = """
import json, rarkit
from rarkit_hf import HuggingFace

recipe = {"dataset": {"name": "huggingface", "path": "owner/name", "size": 5, "workers": 0},
          "tokenizer": {"name": "patch_kmeans", "patch": 1}, "model": {"hidden_size": 8, "depth": 1, "num_heads": 2}}
recipe = rarkit.make_recipe(**recipe, train={"steps": 2, "batch_size": 2})
part = recipe.dataset
planned = [recipe.dataset.info().class_names, part.count("train"), rarkit.plan(recipe, "memory://a")["tokenize"].action]
planned.append(HuggingFace(path=f"{part.path}/data/train-*.parquet", size=5, test="").identity()["content"])
print(json.dumps([planned, "-" * 9]), flush=True)
blocks = [HuggingFace(path=part.path, size=5, workers=0).open(split).read() for split in ("train", "test", "train")]
print(json.dumps([[block.images_NHWC[:, 0, 0, 0].tolist(), block.labels_N.tolist()] for block in blocks]))
"""


def test_a_data_set_on_the_hub_is_planned_by_its_headers_and_fetched_once(folder, tmp_path):
    (tmp_path / "hub").mkdir()
    shutil.copytree(f"{folder}/data", tmp_path / "hub/data")
    sizes = {"train": 30, "validation": 6}
    splits = "\n".join(f"  - name: {name}\n    num_examples: {count}\n    num_bytes: 1" for name, count in sizes.items())
    (tmp_path / "hub/README.md").write_text(f"---\ndataset_info:\n  splits:\n{splits}\n---\n")
    with serving(tmp_path / "hub") as (address, requests):
        own = {
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        said = subprocess.run([sys.executable, "-c", READ], env=os.environ | own, capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    planned, images = (json.loads(line) for line in said.stdout.splitlines())
    pattern = made(f"{folder}/data/train-*.parquet", test="").identity()["content"]
    assert planned[0] == [["cat", "dog", "ant"], 30, "run", pattern]
    train, test, again = images
    assert train == again == [list(range(30)), [number % 3 for number in range(30)]]
    assert test == [list(range(100, 106)), [number % 3 for number in range(100, 106)]]
    files = [request for request in requests if request.endswith(".parquet") and request.startswith("GET")]
    assert len(files) == len(set(files)) == 3
    assert all(f"/resolve/{COMMIT}/" in request for request in files)


def test_a_name_with_an_owner_is_one_on_the_hub_unless_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert made("owner/name").path == "hf://datasets/owner/name"
    (tmp_path / "owner/name").mkdir(parents=True)
    assert made("owner/name").path == "owner/name"
    for path in ("a.parquet", "./owner/other", "owner/a.parquet", "s3://bucket/a.parquet", "/owner/name"):
        assert made(path).path == path
