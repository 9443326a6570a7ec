"""The Inception network of FID: its layers against a second account of them, its file, its place in an evaluation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from rarkit import load_recipe, plan, run
from rarkit.errors import DatasetError, GridError, WeightsError
from rarkit.evaluation.frechet import frechet_distance
from rarkit.features._inception_network import InceptionNetwork, resized
from rarkit.features.inception import Inception
from rarkit.features.reference_batch import ReferenceBatch
from rarkit.images import ImageInfo
from rarkit.models.rar.checkpoints import save_rar
from rarkit.models.rar.rar import RAR
from rarkit.recipe.experiment import resolve
from rarkit.recipe.rehearsal import rehearsal

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def network():
    """Random weights, and statistics of batch normalisation that are not those of a fresh layer."""
    built = InceptionNetwork().initialise(0)
    generator = torch.Generator().manual_seed(1)
    for name, values in built.state_dict().items():
        if name.endswith(("bn.running_mean", "bn.bias", "fc.bias")):
            values.normal_(0.0, 0.1, generator=generator)
        if name.endswith(("bn.running_var", "bn.weight")):
            values.uniform_(0.8, 1.2, generator=generator)
    return built.eval()


@pytest.fixture(scope="module")
def released_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path)
    return path


def images(count, side=40, channels=3):
    return np.random.default_rng(count).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def test_it_has_the_tensors_of_the_published_file(network):
    """torchvision's Inception, auxiliary classifier left out: 21,785,568 parameters below the last layer, 94 convolutions."""
    shapes = {name: tuple(values.shape) for name, values in network.state_dict().items() if "num_batches" not in name}
    below = sum(values.numel() for name, values in network.named_parameters() if not name.startswith("fc."))
    assert below == 21_785_568
    assert sum(name.endswith("conv.weight") for name in shapes) == 94
    assert len(shapes) == 94 * 5 + 2
    known = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch_pool.bn.weight": (64,),
        "Mixed_6a.branch3x3dbl_3.bn.running_var": (96,),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_2.conv.weight": (384, 448, 3, 3),
        "Mixed_7c.branch3x3_2b.bn.bias": (384,),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }
    assert {name: shapes.get(name) for name in known} == known


class Account:
    """A second account of the network, in float64 and written out path by path, as TensorFlow's graph has it."""

    def __init__(self, network):
        self.state = {name: values.double() for name, values in network.state_dict().items()}

    def conv(self, x, name, stride=1, valid=False):
        weight = self.state[f"{name}.conv.weight"]
        padding = "valid" if valid or stride == 2 else "same"
        x = functional.conv2d(x, weight, stride=stride, padding=padding)
        mean, var, scale, shift = (
            self.state[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.clamp((x - mean) / torch.sqrt(var + 0.001) * scale + shift, min=0)

    def chain(self, x, *names):
        for name in names:
            x = self.conv(x, name)
        return x

    def a(self, x, at):
        double = self.chain(x, *(f"{at}.branch3x3dbl_{i}" for i in (1, 2, 3)))
        pooled = self.conv(mean_of_those_there(x), f"{at}.branch_pool")
        small = self.chain(x, f"{at}.branch5x5_1", f"{at}.branch5x5_2")
        return torch.cat([self.conv(x, f"{at}.branch1x1"), small, double, pooled], 1)

    def c(self, x, at):
        once = self.chain(x, *(f"{at}.branch7x7_{i}" for i in (1, 2, 3)))
        twice = self.chain(x, *(f"{at}.branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        pooled = self.conv(mean_of_those_there(x), f"{at}.branch_pool")
        return torch.cat([self.conv(x, f"{at}.branch1x1"), once, twice, pooled], 1)

    def e(self, x, at, pooled):
        once = self.conv(x, f"{at}.branch3x3_1")
        twice = self.chain(x, f"{at}.branch3x3dbl_1", f"{at}.branch3x3dbl_2")
        parts = [self.conv(x, f"{at}.branch1x1")]
        parts += [self.conv(once, f"{at}.branch3x3_2a"), self.conv(once, f"{at}.branch3x3_2b")]
        parts += [self.conv(twice, f"{at}.branch3x3dbl_3a"), self.conv(twice, f"{at}.branch3x3dbl_3b")]
        return torch.cat([*parts, self.conv(pooled, f"{at}.branch_pool")], 1)

    def __call__(self, images_BCHW):
        x = (slowly_resized(images_BCHW.double(), 299) - 128) / 128
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3", valid=True)
        x = functional.max_pool2d(self.conv(x, "Conv2d_2b_3x3"), 3, 2)
        x = functional.max_pool2d(self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3", valid=True), 3, 2)
        for at in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            x = self.a(x, at)
        double = self.chain(x, "Mixed_6a.branch3x3dbl_1", "Mixed_6a.branch3x3dbl_2")
        parts = [self.conv(x, "Mixed_6a.branch3x3", 2), self.conv(double, "Mixed_6a.branch3x3dbl_3", 2)]
        x = torch.cat([*parts, functional.max_pool2d(x, 3, 2)], 1)
        for at in ("Mixed_6b", "Mixed_6c"):
            x = self.c(x, at)
        spatial = self.conv(x, "Mixed_6d.branch1x1")[:, :7]
        x = self.c(self.c(x, "Mixed_6d"), "Mixed_6e")
        factored = self.chain(x, *(f"Mixed_7a.branch7x7x3_{i}" for i in (1, 2, 3)))
        small = self.conv(self.conv(x, "Mixed_7a.branch3x3_1"), "Mixed_7a.branch3x3_2", 2)
        x = torch.cat([small, self.conv(factored, "Mixed_7a.branch7x7x3_4", 2), functional.max_pool2d(x, 3, 2)], 1)
        x = self.e(x, "Mixed_7b", mean_of_those_there(x))
        x = self.e(x, "Mixed_7c", functional.max_pool2d(x, 3, stride=1, padding=1))
        features = x.flatten(2).mean(2)
        # TensorFlow keeps channels last, and the evaluator flattens that.
        return features, spatial.permute(0, 2, 3, 1).reshape(len(x), -1), features @ self.state["fc.weight"].T


def mean_of_those_there(x):
    kernel = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    sums = functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
    return sums / functional.conv2d(torch.ones_like(x), kernel, padding=1, groups=x.shape[1])


def slowly_resized(x, side):
    """Row by row: output pixel i looks at i · input / output, between the pixel there and the next one."""
    height, width = x.shape[2:]
    out = torch.empty(*x.shape[:2], side, side, dtype=x.dtype)
    places = [j * width / side for j in range(side)]
    left, right = [int(z) for z in places], [min(int(z) + 1, width - 1) for z in places]
    dz = torch.tensor([z - int(z) for z in places], dtype=x.dtype)
    for i in range(side):
        y = i * height / side
        top, below, dy = int(y), min(int(y) + 1, height - 1), y - int(y)
        upper = x[:, :, top, left] * (1 - dz) + x[:, :, top, right] * dz
        lower = x[:, :, below, left] * (1 - dz) + x[:, :, below, right] * dz
        out[:, :, i] = upper * (1 - dy) + lower * dy
    return out


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=20)
def test_images_are_resized_as_tensorflow_1_does(height, width, side):
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(side)) * 255
    torch.testing.assert_close(resized(x, side), slowly_resized(x.double(), side).float(), rtol=0, atol=2e-3)


def test_every_layer_is_where_the_graph_has_it(network):
    x = torch.from_numpy(images(1)).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        seen, expected = network(x), Account(network)(x)
    assert [tuple(part.shape) for part in seen] == [(1, 2048), (1, 17 * 17 * 7), (1, 1008)]
    for part, other in zip(seen, expected, strict=True):
        assert other.std() > 1e-3
        assert (part - other).abs().max() <= 1e-4 * other.abs().max()


def test_the_file_loads_with_or_without_what_only_training_uses(network, released_file, tmp_path):
    lean = tmp_path / "lean.pth"
    torch.save({name: values for name, values in network.state_dict().items() if "num_batches" not in name}, lean)
    x = torch.from_numpy(images(3))
    with torch.inference_mode():
        seen = [Inception(weights=str(path)).build({}, "cpu")(x) for path in (released_file, lean)]
        expected = network(x.permute(0, 3, 1, 2).float())
    for one in seen:
        for part, other in zip((one.features_BF, one.spatial_BS, one.logits_BC), expected, strict=True):
            assert (part - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("Mixed_6c.branch7x7_2.conv.weight"), "missing: Mixed_6c.branch7x7_2.conv.weight"),
        (
            lambda state: state.update({"AuxLogits.fc.bias": torch.zeros(3)}),
            "unexpected: AuxLogits.fc.bias",
        ),
        (lambda state: state.update({"fc.bias": torch.zeros(1000)}), "it has 1,000 class scores instead of 1,008"),
    ],
)
def test_a_file_of_another_network_is_refused(network, tmp_path, spoil, message):
    state = dict(network.state_dict())
    spoil(state)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        Inception(weights=str(tmp_path / "other.pth")).build({}, "cpu")
    assert "Is it pt_inception-2015-12-05-6726825d.pth?" in str(caught.value)


def test_grey_images_are_seen_as_grey_ones_in_three_channels(network, released_file):
    model = Inception(weights=str(released_file)).build({}, "cpu")
    grey = torch.from_numpy(images(2, channels=1))
    assert torch.equal(model(grey).features_BF, model(grey.repeat(1, 1, 1, 3)).features_BF)
    with pytest.raises(GridError, match="not 4 channels"):
        Inception(weights=None).check_images(ImageInfo(8, 8, 4, ("a",)))


def test_random_weights_are_never_called_fid(released_file):
    assert Inception(weights=str(released_file)).distance_names() == {"features": "fid", "spatial": "sfid"}
    assert not any("fid" in name for name in Inception(weights=None).distance_names().values())


@cache
def features_of(network, count, side):
    """What the network makes of ``images(count, side)``: features and spatial features."""
    with torch.inference_mode():
        return network(torch.from_numpy(images(count, side)).permute(0, 3, 1, 2).float())[:2]


def write_reference(path, images_NHWC, network, **changes):
    features, spatial = features_of(network, *images_NHWC.shape[:2])
    arrays = {"arr_0": images_NHWC}
    for end, values in (("", features), ("_s", spatial)):
        arrays[f"mu{end}"], arrays[f"sigma{end}"] = values.double().mean(0).numpy(), np.cov(values.double().numpy(), rowvar=False)
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return features.numpy(), spatial.numpy()


def test_what_is_missing_is_all_named(tmp_path):
    extractor = Inception(weights=str(tmp_path / "no.pth"), reference=str(tmp_path / "no.npz"))
    with pytest.raises(WeightsError, match=r"no\.pth.*no\.npz"):
        extractor.content()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arr_0": None}, "has no images: there is no array arr_0"),
        ({"arr_0": np.zeros((3, 4, 4, 1), np.uint8)}, "must be uint8 images"),
        ({"sigma": np.zeros((3, 3))}, r"mu and sigma, of shapes \(2048,\) and \(3, 3\), are no mean"),
        ({"mu_s": np.full(2023, np.nan)}, "mu_s and sigma_s hold numbers that are not finite"),
    ],
)
def test_a_broken_reference_batch_is_refused(network, tmp_path, changes, message):
    write_reference(tmp_path / "batch.npz", images(3), network, **changes)
    batch = ReferenceBatch(str(tmp_path / "batch.npz"))
    with pytest.raises(DatasetError, match=message):
        list(batch.batches(2)), batch.statistics()


def test_a_truncated_reference_batch_is_refused(network, tmp_path):
    path = tmp_path / "batch.npz"
    write_reference(path, images(3), network)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DatasetError, match=r"truncated, damaged or not an \.npz"):
        ReferenceBatch(str(path)).content()


def test_statistics_alone_may_be_left_out(network, tmp_path):
    write_reference(tmp_path / "batch.npz", images(5), network, mu=None, sigma=None, mu_s=None, sigma_s=None)
    batch = ReferenceBatch(str(tmp_path / "batch.npz"))
    assert batch.statistics() == {}
    assert len(batch) == 5
    np.testing.assert_array_equal(np.concatenate(list(batch.batches(2))), images(5))


LEFT_OUT = ["sfid is left out", "precision and recall are left out"]


def test_an_evaluation_by_the_published_protocol_needs_no_data(network, released_file, tmp_path):
    """A released recipe, rehearsed, but with a network from a file and a reference batch: what the ADM evaluator measures."""
    reference = tmp_path / "VIRTUAL_imagenet256_labeled.npz"
    real, real_spatial = write_reference(reference, images(4, side=64), network)
    released = load_recipe(str(ROOT / "recipes/rar_b_released.toml"))
    small = rehearsal(released, "cpu")
    # Nothing may open the dataset's images.
    absent = released.dataset.model_copy(update={"path": str(tmp_path / "nowhere"), "size": 64})
    assert small.evaluate is not None
    features = Inception(weights=str(released_file), reference=str(reference))
    checkpoint = str(tmp_path / "small.safetensors")
    recipe = small.model_copy(update={"dataset": absent})
    save_rar(RAR(resolve(recipe).config), checkpoint)
    recipe = recipe.model_copy(
        update={
            "model": small.model.model_copy(update={"weights": checkpoint}),
            "evaluate": small.evaluate.model_copy(update={"features": features}),
        }
    )
    planned = plan(recipe, str(tmp_path / "store"))
    assert {stage.name: stage.action for stage in planned.stages} == dict.fromkeys(["sample", "reference", "evaluate"], "run")
    done = run(recipe, store=str(tmp_path / "store"), device="cpu", runs=str(tmp_path / "runs"), quiet=True)
    values = {metric.name: metric.value for metric in done.metrics}
    assert set(values) == {"fid", "sfid", "inception_score", "precision", "recall"}
    samples = done.plan.outputs()["sample"].read_array("images")
    with torch.inference_mode():
        seen, spatial, logits = network(torch.from_numpy(samples).permute(0, 3, 1, 2).float())
    assert values["fid"] == pytest.approx(frechet_distance(real, seen.numpy()), rel=1e-3)
    assert values["sfid"] == pytest.approx(frechet_distance(real_spatial, spatial.numpy()), rel=1e-3)
    chances = torch.softmax(logits.double(), 1)
    divergence = (chances * (chances.log() - chances.mean(0).log())).sum(1).mean()
    assert values["inception_score"] == pytest.approx(float(divergence.exp()), rel=1e-4)
    with np.load(done.folder / "samples.npz") as arrays:
        assert arrays["arr_0"].shape == (len(samples), 64, 64, 3)
    assert "fid" in (done.folder / "report.html").read_text().lower()
    numbers = json.loads((done.folder / "metrics.json").read_text())
    assert numbers["metrics"]
    assert numbers["lacking"] == []

    # Statistics of pool_3 alone, as pytorch-fid keeps them.
    write_reference(tmp_path / "statistics.npz", images(4, side=64), network, arr_0=None, mu_s=None, sigma_s=None)
    features = features.model_copy(update={"reference": str(tmp_path / "statistics.npz")})
    recipe = recipe.model_copy(update={"evaluate": small.evaluate.model_copy(update={"features": features})})
    planned = plan(recipe, str(tmp_path / "store"))
    assert {stage.name: stage.action for stage in planned.stages} == {"sample": "cached", "reference": "run", "evaluate": "run"}
    assert [sentence.split(":")[0] for sentence in planned.lacking] == LEFT_OUT
    less = run(recipe, store=str(tmp_path / "store"), device="cpu", runs=str(tmp_path / "runs"), quiet=True)
    assert {metric.name: metric.value for metric in less.metrics} == {
        "fid": pytest.approx(values["fid"]),
        "inception_score": values["inception_score"],
    }
    lacking = json.loads((less.folder / "metrics.json").read_text())["lacking"]
    assert [sentence.split(":")[0] for sentence in lacking] == LEFT_OUT
    assert all(sentence in (less.folder / "report.html").read_text() for sentence in lacking)
