"""rarkit sample: images from runs and checkpoints, independent of their batch, and clear messages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from rarkit.inference import source as sources
from rarkit.models import PRESETS, RAR, RARConfig, save_rar
from rarkit.models.rar.family import PresetName
from rarkit.recipe.released import RELEASED, released_recipe
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN

QUIET = ("-q", "--device", "cpu")


def drawn(rarkit, run, *arguments):
    """Samples to an .npz file; returns images, labels and the printed JSON."""
    code, out, err = rarkit("sample", run, "-o", "drawn.npz", "--json", *QUIET, *arguments)
    assert (code, err) == (0, ""), err
    with np.load("drawn.npz") as arrays:
        return arrays["arr_0"], arrays["arr_1"], json.loads(out)


# Runs


def test_a_run_is_drawn_from_with_its_own_settings(rarkit, finished, tmp_path):
    code, out, _ = rarkit("sample", finished.folder, "--json", *QUIET)
    printed, recipe = json.loads(out), finished.plan.recipe
    assert code == 0
    assert [drawn_class["name"] for drawn_class in printed["classes"]] == list("0123456789")
    assert (printed["per_class"], printed["images"], printed["written"]) == (8, 80, ["samples.png"])
    settings = printed["settings"]
    assert settings["guidance"] == recipe.sample.guidance.model_dump(mode="json")
    assert (settings["temperature"], settings["seed"], settings["precision"]) == (0.8, recipe.seed, "float32")
    assert settings["scan_order"] == {"name": "raster"}
    assert [path.name for path in tmp_path.iterdir()] == ["samples.png"]
    picture = Image.open(tmp_path / "samples.png")
    assert (picture.format, picture.mode) == ("PNG", "RGB")
    assert picture.width > 8 * 48
    assert picture.height > 10 * 48


@pytest.mark.parametrize(
    ("chosen", "summary"),
    [
        (("--class", 3, "-n", 1), "1 image of class '3', seed 5: samples.png\n"),
        (("--class", 3, "-n", 2), "2 images of class '3', seed 5: samples.png\n"),
        (("--class", 3, "--class", 4, "-n", 1), "2 images of 2 classes, seed 5: samples.png\n"),
    ],
)
def test_it_prints_what_it_sampled(rarkit, finished, chosen, summary):
    assert rarkit("sample", finished.folder, *chosen, "--seed", 5, *QUIET)[:2] == (0, summary)


def test_the_samples_are_those_of_the_decoder(rarkit, finished):
    from rarkit.sampling import generate
    from rarkit.stages.base import read_state
    from rarkit.stages.train import trained_model

    images, labels, _ = drawn(
        rarkit, finished.folder, "--class", "7", "--class", "3", "-n", 2, "--seed", 5, "--scan-order", "spiral"
    )
    recipe, plan = finished.plan.recipe, finished.plan
    order = rarkit_order("spiral")
    tokens = generate(
        trained_model(plan["train"].output, recipe.model, plan.experiment.config, recipe.attention, "cpu"),
        [7, 7, 3, 3],
        order=order,
        guidance=recipe.sample.guidance,
        temperature=recipe.sample.temperature,
        seed=5,
        indices=[700_000, 700_001, 300_000, 300_001],
    )
    tokenizer = recipe.tokenizer.build(read_state(plan["fit"].output), "cpu")
    # The file has the classes in turn.
    assert labels.tolist() == [3, 7, 3, 7]
    in_turn = tokens.reshape(-1, 4, 4)[[2, 0, 3, 1]]
    np.testing.assert_array_equal(images[..., :1], tokenizer.decode(in_turn).numpy())


def rarkit_order(name):
    import rarkit

    return rarkit.parts().scan_orders[name]().order(4, 4)


def test_a_sample_depends_on_seed_class_and_number_alone(rarkit, finished):
    images, labels, _ = drawn(rarkit, finished.folder, "-n", 5, "--batch-size", 7)
    alone, _, _ = drawn(rarkit, finished.folder, "--class", 4, "-n", 3, "--batch-size", 1)
    np.testing.assert_array_equal(alone, images[labels == 4][:3])
    reseeded, _, _ = drawn(rarkit, finished.folder, "--class", 4, "-n", 3, "--seed", 2)
    assert (reseeded != alone).any()


def test_settings_can_be_changed(rarkit, finished):
    options = ("--temperature", 0.5, "--guidance-scale", 3, "--top-k", 2, "--top-p", 0.9, "--precision", "bfloat16")
    first, _, printed = drawn(rarkit, finished.folder, "-n", 1, *options)
    assert printed["settings"]["guidance"] == {"name": "power_cosine", "scale": 3.0, "power": 1.0}
    assert [printed["settings"][name] for name in ("temperature", "top_k", "top_p", "precision")] == [0.5, 2, 0.9, "bfloat16"]
    _, _, printed = drawn(rarkit, finished.folder, "-n", 1, "--guidance-power", 2)
    assert printed["settings"]["guidance"] == {"name": "power_cosine", "scale": 1.5, "power": 2.0}
    _, _, printed = drawn(rarkit, finished.folder, "-n", 1, "--guidance-power", 2, "--set", "guidance.scale=3")
    assert printed["settings"]["guidance"] == {"name": "power_cosine", "scale": 3.0, "power": 2.0}
    likeliest, _, _ = drawn(rarkit, finished.folder, "-n", 3, "--class", 0, "--top-k", 1)
    assert (likeliest == likeliest[0]).all()
    assert len(first) == 10


def test_settings_of_the_recipe_can_be_unset(rarkit, finished):
    dropped = ("--unset", "temperature", "--unset", "guidance", "--set", "guidance.scale=2")
    *_, printed = drawn(rarkit, finished.folder, "--class", 3, "-n", 1, *dropped)
    assert printed["settings"]["temperature"] == 1.0
    assert printed["settings"]["guidance"] == {"name": "constant", "scale": 2.0}
    for arguments, message in (
        (("--unset", "top_k"), "--unset top_k: the recipe's [sample] sets no 'top_k'"),
        (("--set", "per_class=2"), "--set per_class: rarkit sample has an option for it, --per-class"),
        (("--set", "temprature=2"), "--set temprature: there is no such sampling setting; did you mean 'temperature'?"),
        (("--set", "quiet=true"), "--set quiet: there is no such sampling setting."),
        (("--set", "guidance.scal=2"), "guidance.scal: no such key; did you mean 'scale'?"),
        (("--set", "guidance.scale=x"), "guidance.scale: found 'x'; input should be a valid number"),
    ):
        code, _, err = rarkit("sample", finished.folder, *arguments)
        assert (code, message in err) == (2, True), err


def test_a_folder_of_images(rarkit, finished, tmp_path):
    for place in ("folder", f"deeper{os.sep}v1.5{os.sep}"):
        code, out, _ = rarkit("sample", finished.folder, "--class", 9, "-n", 2, "-o", place, "--json", *QUIET)
        assert code == 0
        paths = [tmp_path / path for path in json.loads(out)["written"]]
        assert [path.name for path in paths] == ["009-9-0000.png", "009-9-0001.png"]
        assert sorted(paths[0].parent.iterdir()) == paths
    images, _, _ = drawn(rarkit, finished.folder, "--class", 9, "-n", 2)
    for path, image in zip(paths, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), image[..., 0])


def test_a_gif_shows_them_token_by_token(rarkit, finished, tmp_path):
    arguments = ("--class", 1, "--class", 2, "-n", 2, "--scan-order", "spiral", "-o", "grid.png", "--gif", "grid.gif")
    code, out, _ = rarkit("sample", finished.folder, *arguments, *QUIET)
    assert (code, "grid.png and grid.gif" in out) == (0, True)
    gif, grid = Image.open("grid.gif"), np.asarray(Image.open("grid.png")).astype(int)
    frames, times = [], []
    for number in range(gif.n_frames):
        gif.seek(number)
        frames.append(np.asarray(gif.convert("RGB")).astype(int))
        times.append(gif.info["duration"])
    assert len(frames) == 17
    assert times[-1] > 5 * max(times[:-1])
    grey = [(frame == 128).all(-1) for frame in frames]
    assert grey[0].sum() == 4 * 48 * 48, "at first nothing is drawn"
    assert abs(frames[-1] - grid).max() <= 12, "the last frame is the grid, in 254 colours"
    assert (frames[0][~grey[0]] == frames[-1][~grey[0]]).all(), "captions never change"
    first = np.argwhere(grey[0])[0]
    for step, frame in enumerate(frames):
        # Each cell has 2 × 2 pixels, magnified six times.
        cells = [first + 12 * np.array(divmod(cell, 4)) for cell in rarkit_order("spiral")]
        for rank, (y, x) in enumerate(cells):
            shown = frames[-1] if rank < step else frames[0]
            assert (frame[y : y + 12, x : x + 12] == shown[y : y + 12, x : x + 12]).all()


def test_a_gif_alone(rarkit, finished, tmp_path):
    code, out, _ = rarkit("sample", finished.folder, "--class", 1, "-n", 1, "--gif", "one.gif", *QUIET)
    assert (code, out) == (0, f"1 image of class '1', seed {finished.plan.recipe.seed}: one.gif\n")
    assert [path.name for path in tmp_path.iterdir()] == ["one.gif"]


# Checkpoints: small stand-ins for the released ones


@pytest.fixture
def released(tmp_path, monkeypatch):
    """The folder with the files of a RAR-B of width 32, and of a tokenizer with an eighth of the width."""
    small = RARConfig(hidden_size=32, depth=1, num_heads=2, mlp_hidden_size=32, seq_len=256, codebook_size=1024, num_classes=1000)
    monkeypatch.setitem(PRESETS, "rar_b", small)
    narrow = MaskGITVQGAN(weights=None, hidden_channels=32, channel_mult=(1, 1, 1, 1, 1), num_res_blocks=1, z_channels=32)
    sizes = {name: getattr(narrow, name) for name in ("hidden_channels", "channel_mult", "num_res_blocks", "z_channels")}

    def recipe(preset, weights, tokenizer):
        released = released_recipe(preset, weights, tokenizer)
        return released.model_copy(update={"tokenizer": released.tokenizer.model_copy(update=sizes)})

    monkeypatch.setattr(sources, "released_recipe", recipe)
    folder = tmp_path.parent / f"{tmp_path.name}-weights"
    folder.mkdir()
    save_rar(RAR(small, seed=0), folder / "rar_b.bin")
    save_file(narrow.network().state_dict(), folder / "vqgan.safetensors")
    return folder


def test_a_checkpoint_is_drawn_from_with_its_released_settings(rarkit, released, tmp_path):
    checkpoint = (released / "rar_b.bin", "--preset", "rar_b", "--tokenizer", released / "vqgan.safetensors")
    chosen = ("--class", "n02099601", "--class", 972, "-n", 2, "--seed", 1, "--batch-size", 3)
    images, labels, printed = drawn(rarkit, *checkpoint, *chosen, "--gif", "grid.gif")
    assert (images.shape, images.dtype, labels.tolist()) == ((4, 256, 256, 3), np.uint8, [207, 972, 207, 972])
    assert printed["classes"] == [{"label": 207, "name": "golden retriever"}, {"label": 972, "name": "cliff"}]
    assert printed["settings"] == {
        "seed": 1,
        "scan_order": {"name": "raster"},
        "guidance": {"name": "power_cosine", "scale": 16.0, "power": 2.75},
        "temperature": 1.0,
        "top_k": None,
        "top_p": None,
        "precision": "float32",
        "kv_cache": "same",
        "batch_size": 3,
    }
    assert Image.open("grid.gif").n_frames == 64
    again, _, _ = drawn(rarkit, *checkpoint, "--class", "Cliff", "-n", 1, "--seed", 1, "--batch-size", 1)
    # The tokens are the same, but convolutions may round differently in another batch.
    assert abs(again[0].astype(int) - images[1]).max() <= 1


def test_checkpoints_lie_anywhere(rarkit, released, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fsspec.filesystem("memory").pipe("/sampled/vqgan.safetensors", (released / "vqgan.safetensors").read_bytes())
    weights, chosen = os.path.relpath(released / "rar_b.bin"), ("--preset", "rar_b", "--class", 1, "-n", 1)
    here, _, _ = drawn(rarkit, weights, *chosen, "--tokenizer", os.path.relpath(released / "vqgan.safetensors"))
    there, _, _ = drawn(rarkit, weights, *chosen, "--tokenizer", "memory://sampled/vqgan.safetensors")
    np.testing.assert_array_equal(here, there)


def test_what_goes_with_a_checkpoint(rarkit, released, finished, tmp_path):
    weights, tokenizer = released / "rar_b.bin", released / "vqgan.safetensors"
    whole = ("--preset", "rar_b", "--tokenizer", tokenizer)
    mistakes = [
        ((weights, "--tokenizer", tokenizer), "give --preset, one of rar_b, rar_l, rar_xl, rar_xxl"),
        ((weights, "--preset", "rar_xb", "--tokenizer", tokenizer), "did you mean 'rar_b'?"),
        ((weights, "--preset", "rar_b"), "give --tokenizer, the path or fsspec URL of the released maskgit-vqgan"),
        ((weights, "--preset", "rar_l", "--tokenizer", tokenizer), "does not fit the model"),
        ((weights, "--preset", "rar_l", "--tokenizer", tokenizer), "It fits preset 'rar_b'."),
        ((weights, "--preset", "rar_b", "--tokenizer", released / "none.bin"), "none.bin"),
        ((released / "none.bin", *whole), "none.bin"),
        ((finished.folder, "--preset", "rar_b"), "leave out --preset rar_b"),
        ((finished.folder, "--tokenizer", tokenizer), "leave out --tokenizer"),
        ((weights, *whole, "--class", "retriever"), "matches 5 classes: 'flat-coated retriever' (205)"),
        ((weights, *whole, "--class", "golden retreiver"), "Did you mean 'golden retriever' (207)"),
        ((weights, *whole, "--class", 1000), "there is no class 1000: classes are 0 to 999"),
    ]
    for arguments, message in mistakes:
        code, out, err = rarkit("sample", *arguments, *QUIET)
        assert (code, out) == (2, ""), err
        assert message in err
        assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_recipes_and_command_have_the_same_released_settings():
    import rarkit

    recipes = Path(__file__).parents[2] / "recipes"
    assert set(RELEASED) == set(PRESETS) == set(PresetName.__args__)
    for preset in RELEASED:
        written = rarkit.load_recipe(str(recipes / f"{preset}_released.toml"))
        ours = released_recipe(preset, written.model.weights, written.tokenizer.weights)
        elsewhere = {"title", "dataset", "evaluate"}
        assert written.model_dump(exclude=elsewhere) == ours.model_dump(exclude=elsewhere)
        assert written.dataset.info() == ours.dataset.info()
        trained = rarkit.load_recipe(str(recipes / f"{preset}.toml"))
        assert trained.sample == ours.sample


# Mistakes: one clear message, exit code 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--class", "ten"), "no class is called 'ten'"),
        (("--class", 10), "there is no class 10: classes are 0 to 9"),
        (("--class", -1), "there is no class -1"),
        (("--class", 3, "--class", 3), "class '3' is named twice"),
        (("-n", 0), "there cannot be 0 images per class"),
        (("-o", "-"), "images cannot be written to stdout"),
        (("-o", "grid.jpg"), "grid.jpg cannot be written: it has to end in .png or .npz, or a folder"),
        (("--gif", "grid.png"), "grid.png cannot be written: it has to end in .gif"),
        (("-o", "file/grid.png"), "file/grid.png cannot be written"),
        (("-o", "file/folder"), "file/folder cannot be written"),
        (("--scan-order", "spirall"), "did you mean 'spiral'?"),
        (("--temperature", 0), "temperature: found 0.0"),
        (("--top-p", 2), "top_p: found 2.0"),
        (("--precision", "float8"), "precision: found 'float8'"),
        (("--guidance-power", -1), "power: found -1.0"),
        (("--guidance-scale", 2, "--set", "guidance=3"), "guidance: found 3"),
        (("--batch-size", 0), "batch_size: found 0"),
        (("--device", "gpu"), "device 'gpu' cannot be used here"),
    ],
)
def test_mistakes(rarkit, finished, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    code, out, err = rarkit("sample", finished.folder, "-q", *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_neither_run_nor_checkpoint(rarkit, tmp_path):
    code, _, err = rarkit("sample", "nowhere", *QUIET)
    assert (code, "nowhere is not a run" in err) == (2, True)


def test_a_run_without_its_model(rarkit, finished, tmp_path):
    receipt = json.loads((finished.folder / "receipt.json").read_text())
    receipt["stages"] = [stage for stage in receipt["stages"] if stage["name"] != "train"]
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    code, _, err = rarkit("sample", tmp_path, *QUIET)
    assert (code, "no output of stage 'train'" in err) == (2, True)
    receipt = json.loads((finished.folder / "receipt.json").read_text())
    receipt["store"] = str(tmp_path / "empty")
    (tmp_path / "receipt.json").write_text(json.dumps(receipt))
    code, _, err = rarkit("sample", tmp_path, *QUIET)
    assert code == 2
    assert f"is not in the store {tmp_path / 'empty'}. If the store was moved, name it with --store" in err
    assert "--force" not in err


def test_what_is_there_is_replaced(rarkit, finished, tmp_path):
    for name in ("a.png", "a.npz", "a.gif"):
        (tmp_path / name).write_text("old")
    for name in ("a.png", "a.npz"):
        assert rarkit("sample", finished.folder, "-n", 1, "-o", name, "--gif", "a.gif", *QUIET)[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.npz", "a.png"]
    assert {Image.open(tmp_path / f"a.{suffix}").format for suffix in ("png", "gif")} == {"PNG", "GIF"}


def test_what_nobody_named_replaces_nothing(rarkit, finished, tmp_path):
    (tmp_path / "samples.png").write_text("mine")
    (tmp_path / "samples-2.png").symlink_to(tmp_path / "nowhere")
    for name in ("samples-3.png", "samples-4.png"):
        code, out, _ = rarkit("sample", finished.folder, "--class", 3, "-n", 1, *QUIET)
        assert (code, out) == (0, f"1 image of class '3', seed {finished.plan.recipe.seed}: {name}\n")
        assert Image.open(tmp_path / name).format == "PNG"
    assert (tmp_path / "samples.png").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_from_python(finished, tmp_path):
    import rarkit

    drawing = rarkit.sample(finished.folder, [8, "1"], 3, device="cpu", quiet=True)
    assert drawing.images_NHWC.shape == (6, 8, 8, 1)
    assert (drawing.classes, drawing.class_names, drawing.tokens_NL.shape) == ((8, 1), ("8", "1"), (6, 16))
    assert drawing.save(tmp_path / "grid.png") == [str(tmp_path / "grid.png")]
    assert drawing.animate(tmp_path / "grid.gif") == [str(tmp_path / "grid.gif")]
