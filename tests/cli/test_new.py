"""``rarkit new``: what it prints and writes; what it is given is tried in tests/proposal."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from rarkit.proposal.timing import Seconds


@pytest.fixture
def pets(tmp_path, monkeypatch):
    monkeypatch.setattr("rarkit.proposal.new_recipe.measured_here", lambda experiment: Seconds(0.02, 1.0))
    monkeypatch.setattr("rarkit.proposal.survey.usable_workers", lambda: 0)
    generator = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(12):
            levels = generator.integers(0, 256, (36, 40, 3), np.uint8)
            Image.fromarray(levels).save(tmp_path / "pets" / name / f"{number}.png")


def test_it_says_what_it_found_and_chose_and_what_comes_next(rarkit, pets, tmp_path):
    code, out, err = rarkit("new", "pets", "--minutes", "2", "--show", "pets.png")
    assert code == 0, err
    for words in (
        "24 images",
        "cats",
        'dataset.path = "pets"',
        "(at 20 ms a step",
        "wrote pets.toml",
        "wrote pets.png",
    ):
        assert words in out
    # Of patch_kmeans, or of rarkit-vq's tokenizer, where that is installed.
    assert "tokenizer.codes" in out or "tokenizer.quantizer" in out
    assert out.rstrip().endswith("Next: rarkit run pets.toml")
    assert "warning" not in err
    assert Image.open(tmp_path / "pets.png").format == "PNG"
    assert rarkit("plan", "pets.toml")[0] == 0


def test_it_writes_over_nothing_unasked(rarkit, pets, tmp_path):
    (tmp_path / "pets.toml").write_text("mine")
    code, out, err = rarkit("new", "pets")
    assert (code, out, (tmp_path / "pets.toml").read_text()) == (2, "", "mine")
    assert "--force" in err
    assert rarkit("new", "pets", "-o", "other.toml", "-q")[0] == 0
    assert rarkit("new", "pets", "--force")[0] == 0
    assert (tmp_path / "pets.toml").read_text().startswith("# Written by rarkit new for pets")


def test_as_json_it_prints_all_of_it(rarkit, pets):
    code, out, _ = rarkit("new", "pets", "--json")
    said = json.loads(out)
    assert code == 0
    assert said["recipe"] == "pets.toml"
    assert said["images"] == {"train": 20, "test": 4}
    assert said["classes"] == {"cats": 10, "dogs": 10}
    assert said["tables"]["dataset"]["path"] == "pets"
    assert said["reasons"]["dataset.size"]
    assert set(said["seconds"]) >= {"train", "sample"}


@pytest.mark.parametrize(
    ("arguments", "message"), [(("--show", "x.txt"), ".png"), (("--minutes", "0"), "--minutes"), (("-o", "recipe"), ".toml")]
)
def test_wrong_options_write_nothing(rarkit, pets, tmp_path, arguments, message):
    code, _, err = rarkit("new", "pets", *arguments)
    assert code == 2
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]
