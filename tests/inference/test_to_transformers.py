"""Exports for Hugging Face transformers. What they compute there is checked by ``tests/exported/checks_of_exports.py``."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rarkit.errors import CapabilityError, UserError, WeightsError
from rarkit.inference.to_transformers.export import export_transformers, write_folder
from rarkit.inference.to_transformers.one_file import one_file
from rarkit.models import load_llama_ar, load_rar, save_rar
from rarkit.models.base import ModelFamily
from rarkit.models.rar.family import RARFamily
from rarkit.tokenizers.base import Tokenizer
from rarkit.tokenizers.patch_kmeans import PatchKMeans
from tests.exported.small import SMALL, write_small
from tests.models.rar.small import TINY, lively
from tests.processes import call
from tests.rules import BESIDE_EXPORTS

CHECKS = Path(__file__).parents[1] / "exported" / "checks_of_exports.py"


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder of small exports, and what was exported, by name."""
    folder = tmp_path_factory.mktemp("exported") / "exports"
    folder.mkdir()
    return folder, {name: write_small(name, folder) for name in SMALL}


def test_the_folder_has_what_it_promises(exports) -> None:
    folder, opened = exports
    for name, exported in opened.items():
        files = {path.name for path in (folder / name).iterdir()}
        code = "modeling_llama_ar.py" if name == "llama_ar" else "modeling_rar.py"
        decoder = {"image_decoder.py", "image_decoder.safetensors"}
        assert files == {"config.json", "generation_config.json", "model.safetensors", "README.md", code} | decoder
        config = json.loads((folder / name / "config.json").read_text())
        assert config["guidance"] == {"name": "linear", "scale": 3.0, "start": 1.0}
        assert config["id2label"] == {str(label): text for label, text in enumerate(exported.experiment.images.class_names)}
        generation = json.loads((folder / name / "generation_config.json").read_text())
        assert generation["max_length"] == exported.experiment.config.seq_len + (1 if name == "llama_ar" else 2)
        card = (folder / name / "README.md").read_text()
        assert "Not measured." in card
        assert f'name = "{exported.experiment.recipe.scan_order.name}"' in card


@pytest.mark.parametrize("name", SMALL)
def test_the_code_imports_only_what_is_there(exports, name: str) -> None:
    for path in (exports[0] / name).glob("*.py"):
        tree = ast.parse(path.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module.split(".")[0] for module in imported} <= BESIDE_EXPORTS | sys.stdlib_module_names, path
        defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        assert len(defined) == len(set(defined)), path


@pytest.mark.parametrize("name", ["rar", "rar_prefix", "rar_vqgan"])
def test_load_rar_reads_it_back_to_the_same_bits(exports, name: str) -> None:
    folder, opened = exports
    experiment, model = opened[name].experiment, opened[name].model
    order_L = torch.from_numpy(experiment.order_L)
    back, merged = load_rar(folder / name), model.merge_positions(order_L)
    assert back.config == model.config
    assert back.state_dict().keys() == merged.state_dict().keys()
    assert all(torch.equal(tensor, merged.state_dict()[key]) for key, tensor in back.state_dict().items())
    expected = load_file(folder / f"{name}.safetensors")
    assert torch.equal(back(expected["tokens"], expected["labels"], order_L), expected["logits"])
    assert load_rar(folder / name / "model.safetensors").config == model.config


def test_load_llama_ar_reads_it_back_to_the_same_bits(exports) -> None:
    folder, opened = exports
    model = opened["llama_ar"].model
    back = load_llama_ar(folder / "llama_ar", model.config)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in back.state_dict().items())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"hidden_size": ', "is damaged"),
        ("{}", "is not the configuration of a RAR"),
        ('{"hidden_size": "wide"}', "is not the configuration of a RAR"),
    ],
)
def test_a_damaged_configuration_is_refused(exports, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "model.safetensors").write_bytes((exports[0] / "rar" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_rar(tmp_path)


def test_a_run_is_exported(small_finished, tmp_path: Path) -> None:
    folder = export_transformers(small_finished.folder, tmp_path / "model")
    assert folder == str(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert re.search(r"^\| bits_per_token \| [\d.]+ bits", card, re.MULTILINE), card
    assert str(small_finished.folder.resolve().parent) not in card
    # Again, into the same folder.
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    export_transformers(small_finished.folder, tmp_path / "model")
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before


def test_the_card_names_no_folders(tmp_path: Path, exports) -> None:
    exported = exports[1]["rar"]
    recipe = exported.experiment.recipe
    elsewhere = recipe.model_copy(update={"model": recipe.model.model_copy(update={"weights": "/home/somebody/weights/rar.bin"})})
    write_folder(replace(exported, experiment=replace(exported.experiment, recipe=elsewhere)), tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert 'weights = "rar.bin"' in card
    assert "somebody" not in card


def test_a_checkpoint_needs_its_size(tmp_path: Path) -> None:
    save_rar(lively(TINY), tmp_path / "rar_b.bin")
    with pytest.raises(UserError, match="give its size with --preset"):
        export_transformers(tmp_path / "rar_b.bin", tmp_path / "model")
    with pytest.raises(UserError, match="'rar_b'"):
        export_transformers(tmp_path / "rar_b.bin", tmp_path / "model", preset="rar_bb")
    with pytest.raises(WeightsError, match="does not fit"):
        export_transformers(tmp_path / "rar_b.bin", tmp_path / "model", preset="rar_b")
    assert not (tmp_path / "model").exists()


def test_other_peoples_folders_are_left_alone(small_finished, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="has other files in it"):
        export_transformers(small_finished.folder, tmp_path)
    with pytest.raises(UserError, match="leave out --preset rar_b"):
        export_transformers(small_finished.folder, tmp_path / "model", preset="rar_b")
    with pytest.raises(UserError, match="is not on this machine"):
        export_transformers(small_finished.folder, "s3://bucket/model")


def test_families_and_tokenizers_without_code(exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RARFamily, "for_transformers", ModelFamily.for_transformers)
    with pytest.raises(CapabilityError, match="model 'rar' has no code for transformers"):
        write_folder(exports[1]["rar"], tmp_path / "model")
    assert PatchKMeans.image_decoder is not Tokenizer.image_decoder
    assert Tokenizer.image_decoder(PatchKMeans(), {}) is None


def test_one_file_has_each_module_once() -> None:
    text = one_file("rarkit.models.rar.modeling_rar")
    assert text.count("class ImageGeneration") == 1
    assert text.count("from __future__ import annotations") == 1
    assert text.index("class ImageGeneration") < text.index("class RARForCausalLM")


def checks_of(folder: str) -> None:
    """Runs the checks on a folder of exports, for ``call``."""
    os.environ |= {"RARKIT_EXPORTS": folder, "RARKIT_IS_HERE": "1", "HF_HUB_OFFLINE": "1"}
    os.chdir(folder)
    chosen = ("-k", "[rar] or rar- or llama")
    sys.exit(pytest.main(["-q", "--noconftest", "-p", "no:cacheprovider", str(CHECKS), *chosen]))


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers is not installed")
def test_transformers_computes_the_same(exports, tmp_path: Path) -> None:
    """In a process of its own; ``nox -s transformers`` does it without rarkit, with the oldest and the newest transformers."""
    folder, opened = exports
    done = call(tmp_path, checks_of, str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    back = load_rar(folder.with_name("again") / "rar").state_dict()
    order_L = torch.from_numpy(opened["rar"].experiment.order_L)
    merged = opened["rar"].model.merge_positions(order_L).state_dict()
    assert all(torch.equal(tensor, merged[name]) for name, tensor in back.items())
