"""Fingerprints cover everything that affects an output. Each setting of each table and part is changed in turn.

A stage reads its view and upstream outputs, and nothing else. So an unchanged view gives an unchanged output. If the view changes
but the fingerprint does not, the stage runs again, and its output must be the same: bit by bit, or within the tolerance of the
setting's ``NotInFingerprint``. For a few changes all stages run, to check that they read nothing but their view.
"""

from __future__ import annotations

import io
import json
import tarfile
from functools import cache
from itertools import count
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import create_model
from safetensors.torch import load

import rarkit
from rarkit.engine.settings import TrainSettings
from rarkit.pipeline.execution import execute
from rarkit.pipeline.plan import STAGES, plan
from rarkit.pipeline.preflight import check_ready
from rarkit.recipe.experiment import resolve
from rarkit.recipe.load import parse_recipe
from rarkit.recipe.schema import Recipe
from rarkit.registry.component import NotInFingerprint, Settings
from rarkit.registry.kinds import KINDS, OBSERVERS, TABLES
from rarkit.runtime.progress import Reporter
from rarkit.sampling.guidance import Constant, Interval, Linear, PowerCosine
from rarkit.tokenizers.exported import write_tokenizer
from rarkit.tokenizers.maskgit_vqgan import MaskGITVQGAN
from rarkit.tokenizers.patch_kmeans import PatchKMeans

BASE: dict[str, Any] = {
    "title": "fingerprints",
    "dataset": {"name": "generated", "height": 4, "width": 4, "channels": 1, "train_images": 24, "test_images": 12},
    "tokenizer": {"name": "patch_kmeans", "patch": 2, "codes": 5, "iterations": 2},
    "permutation_schedule": {"name": "linear"},
    "model": {"hidden_size": 8, "depth": 1, "num_heads": 2, "dropout": 0.0, "attention_dropout": 0.0, "class_dropout": 0.5},
    "train": {"steps": 4, "batch_size": 4, "precision": "float32", "learning_rate": 0.05, "warmup_steps": 1, "checkpoint_every": 2},
    "sample": {"per_class": 4, "guidance": {"name": "constant", "scale": 1.5}, "batch_size": 16, "npz": False},
    "evaluate": {"bootstrap": 2, "features": {"name": "classifier", "width": 4, "features": 8, "steps": 3, "batch_size": 4}},
}
SMALL_RAR = BASE["model"]
SMALL_LLAMA = {"name": "llama_ar", "hidden_size": 8, "depth": 1, "num_heads": 2, "dropout": 0.0, "attention_dropout": 0.0}
SQUARE = {"size": 8, "workers": 0}
NARROW = {"hidden_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "z_channels": 32, "codes": 7}
COLOUR = {"name": "generated", "height": 4, "width": 4, "channels": 3, "train_images": 24, "test_images": 12}
PARTS: dict[str, dict[str, Any]] = {
    "datasets.digits": {"dataset": {"name": "digits"}},
    "datasets.generated": {},
    "datasets.image_folder": {"dataset": {"name": "image_folder", "path": "FILES/folder", **SQUARE}},
    "datasets.image_list": {
        "dataset": {"name": "image_list", "path": "FILES/list.csv", "root": "FILES/folder", "random_crops": 2, **SQUARE}
    },
    "datasets.npz": {"dataset": {"name": "npz", "path": "FILES/one.npz"}},
    "datasets.photographs": {"dataset": {"name": "photographs", "size": 8, "train_images": 24, "test_images": 12}},
    "datasets.webdataset": {"dataset": {"name": "webdataset", "urls": "FILES/one.tar", "class_names": ["a", "b"], **SQUARE}},
    "tokenizers.exported": {"tokenizer": {"name": "exported", "weights": "FILES/kmeans.safetensors"}},
    "tokenizers.maskgit_vqgan": {
        "dataset": COLOUR,
        "tokenizer": {"name": "maskgit_vqgan", "weights": "FILES/vqgan.safetensors", **NARROW},
    },
    "tokenizers.patch_kmeans": {},
    "tokenizers.pixel": {"tokenizer": {"name": "pixel", "levels": 6}},
    **{f"scan_orders.{name}": {"scan_order": {"name": name}} for name in rarkit.parts().scan_orders},
    **{f"permutation_schedules.{name}": {"permutation_schedule": {"name": name}} for name in rarkit.parts().permutation_schedules},
    "attention_backends.sdpa": {"attention": {"name": "sdpa"}},
    "attention_backends.plain": {"attention": {"name": "plain"}},
    "models.rar": {},
    "models.llama_ar": {"model": SMALL_LLAMA, "permutation_schedule": None},
    "feature_extractors.classifier": {},
    # As few images as possible, because the network takes a tenth of a second for each.
    "feature_extractors.inception": {
        "dataset": {**BASE["dataset"], "train_images": 4, "test_images": 2},
        "tokenizer": {"name": "pixel", "levels": 6},
        "sample": {"per_class": 1, "classes": [0, 1]},
        "evaluate": {"bootstrap": 0, "yardsticks": False, "features": {"name": "inception", "weights": None}},
    },
    "trackers.tensorboard": {"trackers": [{"name": "tensorboard"}]},
}
"""The tables that a recipe needs to use each part."""
WITHOUT_RUN = {"attention_backends.flex"}
"""Parts that have no settings, and no backward pass on a CPU."""
CHANGED: dict[str, Any] = {
    "dataset.test_fraction": 0.3,
    "dataset.background": [0, 0, 255],
    "datasets.generated.height": 6,
    "datasets.generated.width": 6,
    "dataset.size": 10,
    "dataset.channels": 3,
    "dataset.class_names": ["a", "b", "c", "d"],
    "dataset.exif": True,
    "dataset.crop": "ten",
    "datasets.image_list.crop": ("ten", "goes without random_crops"),
    "datasets.image_list.crop_scale": [0.5, 1.0],
    "datasets.image_list.crop_seed": 1,
    "dataset.crop_scale": ([0.5, 1.0], "goes with random_crops, as in image_list"),
    "dataset.crop_seed": (1, "goes with random_crops, as in image_list"),
    "dataset.on_bad_image": "skip",
    "dataset.workers": 1,
    "dataset.train": "more",
    "dataset.test": "more",
    "dataset.class_list": ("imagenet", "its 1,000 classes are not in this folder"),
    "datasets.image_folder.path": "FILES/other",
    "datasets.image_list.path": "FILES/other.csv",
    "datasets.image_list.test_path": "FILES/rest.csv",
    "datasets.image_list.root": "FILES/other/../folder",
    "datasets.image_list.file_column": "again",
    "datasets.image_list.label_column": "of",
    "datasets.image_list.split_column": "part",
    "datasets.image_list.train": ("val", "goes with split_column, which is tested"),
    "datasets.image_list.test": "",
    "datasets.image_list.class_names": ["bees", "ants"],
    "datasets.npz.path": "FILES/two.npz",
    "datasets.npz.test_path": "FILES/two.npz",
    "datasets.npz.images": "arr_0",
    "datasets.npz.labels": "arr_1",
    "datasets.npz.test_images": "arr_0",
    "datasets.npz.test_labels": ("arr_1", "goes with test_images, which is tested"),
    "datasets.npz.class_names": ["a", "b"],
    "datasets.webdataset.urls": "FILES/two.tar",
    "datasets.webdataset.test_urls": "FILES/two.tar",
    "datasets.webdataset.image": "jpg;png;jpeg",
    "datasets.webdataset.label": "index",
    "datasets.webdataset.class_names": ["a", "b", "c"],
    "datasets.webdataset.num_classes": (2, "an alternative to class_names, which is tested"),
    "datasets.webdataset.sizes": ("FILES/sizes.json", "counts that the shards do not have are refused"),
    "tokenizer.weights": "FILES/vqgan2.safetensors",
    "tokenizers.exported.weights": "FILES/kmeans2.safetensors",
    "tokenizers.maskgit_vqgan.hidden_channels": (64, "the weights fit only one network"),
    "tokenizers.maskgit_vqgan.channel_mult": ([1, 1, 1], "the weights fit only one network"),
    "tokenizers.maskgit_vqgan.num_res_blocks": (2, "the weights fit only one network"),
    "tokenizers.maskgit_vqgan.z_channels": (64, "the weights fit only one network"),
    "tokenizers.maskgit_vqgan.codes": (8, "the weights fit only one network"),
    "tokenizer.patch": 1,
    "tokenizer.max_images": 6,
    "tokenizer.max_patches": 12,
    "permutation_schedule.start": 0.0,
    "permutation_schedule.end": 1.0,
    "permutation_schedule.points": [0.1, 0.2],
    "permutation_schedule.ratios": [1.0, 0.0, 0.5],
    "model.weights": (None, "replaces training: tested below"),
    "model.preset": (None, "only the paper's sizes, which stand for the four numbers"),
    "model.hidden_size": 16,
    "model.num_heads": 1,
    "model.conditioning": "prefix",
    "model.mlp_hidden_size": 20,
    "model.dropout": 0.3,
    "model.attention_dropout": 0.3,
    "train.tokens": (None, "tested below"),
    "train.init_from": (None, "tests/stages/test_initial_weights.py tests it"),
    "train.muon_learning_rate": (0.1, "goes with optimizer, tested below"),
    "train.decay_steps": (2, "goes with learning_rate_schedule, tested below"),
    "train.ema_decay": 0.5,
    "train.micro_batch_size": 2,
    "train.shard": (2, "goes with several processes: tests/engine/test_ranks.py"),
    "train.replicate": (2, "goes with several processes: tests/engine/test_ranks.py"),
    "train.gradient_clip": 0.01,
    "train.betas": [0.5, 0.6],
    "train.precision": "bfloat16",
    "train.warmup_steps": 3,
    "train.keep_every": 3,
    "train.evaluate_every": 2,
    "train.preview_every": 2,
    "train.learning_rate": 0.1,
    "train.end_learning_rate": 0.01,
    "sample.classes": [1],
    "sample.top_k": 2,
    "sample.top_p": 0.5,
    "sample.precision": "bfloat16",
    "sample.kv_cache": "float8",
    "sample.guidance": {"name": "linear", "scale": 1.5},
    "evaluate.features.max_images": 6,
    "evaluate.features.width": 8,
    "evaluate.features.weights": (None, "the published file has 95 MB; tests/features checks its content"),
    "evaluate.features.reference": "FILES/reference.npz",
    "seed": 1,
    "train.seed": 1,
    "sample.seed": 1,
}
"""Other values for settings, by table and key or by part and key, if ``other_value`` cannot derive one; a tuple with a reason if no
run can use the value."""
ONLY_ON_THE_PAGE = {"title"}
runs = count()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Data and weights that settings point to."""
    folder = tmp_path_factory.mktemp("files")
    draw = np.random.default_rng(0)
    for place, images in (("folder", 4), ("other", 5)):
        for split in ("train", "val", "more"):
            for name in ("ants", "bees"):
                (folder / place / split / name).mkdir(parents=True)
                for number in range(images):
                    picture = Image.fromarray(draw.integers(0, 256, (9, 11, 3), dtype=np.uint8))
                    picture.save(folder / place / split / name / f"{number}.png")
    places = [(split, name, number) for number in range(4) for split in ("train", "val") for name in ("ants", "bees")]
    rows = [
        f"{split}/{name}/{number}.png,{split}/{name}/{number}.png,{name},{name[::-1]},{split}" for split, name, number in places
    ]
    for name, listed in (("list.csv", rows[:12]), ("other.csv", rows[11::-1]), ("rest.csv", rows[12:])):
        (folder / name).write_text("\n".join(["file,again,label,of,part", *listed]))
    for name in ("one", "two"):
        images, labels = draw.integers(0, 256, (16, 4, 4, 3), dtype=np.uint8), np.arange(16) % 2
        np.savez(folder / f"{name}.npz", images=images, labels=labels, arr_0=images[::-1], arr_1=labels[::-1], y_test=labels)
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for number in range(6):
                png = io.BytesIO()
                Image.fromarray(draw.integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(png, "PNG")
                for suffix, data in (("png", png.getvalue()), ("cls", str(number % 2).encode())):
                    member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    np.savez(folder / "reference.npz", arr_0=draw.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8))
    from safetensors.torch import save_file

    for seed, name in enumerate(("vqgan", "vqgan2")):
        torch.manual_seed(seed)
        state = MaskGITVQGAN(weights=None, **NARROW).network().state_dict()
        save_file({key: value + 0.1 * seed for key, value in state.items()}, folder / f"{name}.safetensors")
    for name in ("kmeans", "kmeans2"):
        learned = {"codebook": draw.uniform(0, 255, (5, 4)).astype(np.float32)}
        write_tokenizer(PatchKMeans(codes=5), learned, str(folder / f"{name}.safetensors"))
    return folder


def tables_of(part: str, files) -> dict[str, Any]:
    """The tables of a recipe that uses a part."""
    text = json.dumps({key: value for key, value in {**BASE, **PARTS[part]}.items() if value is not None})
    return json.loads(text.replace("FILES", str(files)))


def ran(tables: dict[str, Any], store: str = "", force: tuple[str, ...] = ()) -> dict[str, tuple[str, dict[str, Any]]]:
    """Runs a recipe, in an empty store unless one is given; returns fingerprint and output of each stage."""
    recipe = parse_recipe(tables, rarkit.parts())
    planned = plan(recipe, store or f"memory://fingerprints-{next(runs)}", force=force)
    check_ready(planned, "cpu")
    execute(planned, "cpu", Reporter(quiet=True), lambda stage, record: None)
    return {stage.name: (stage.output.fingerprint, content(stage.output)) for stage in planned.stages}


def views(tables: dict[str, Any], store: str) -> dict[str, tuple[str | None, Any]]:
    """Fingerprint and view of each stage."""
    planned = plan(parse_recipe(tables, rarkit.parts()), store)
    return {stage.name: (stage.fingerprint, stage.view) for stage in planned.stages}


def is_beside(name: str) -> bool:
    """Whether a file was kept beside an output because somebody asked for it: nothing that runs later reads it."""
    return name == "held_out.json" or name.startswith("checkpoint-")


def content(output) -> dict[str, Any]:
    """Arrays, tensors and numbers of an output, by name."""
    record = output.record()
    values: dict[str, Any] = {name: output.read_array(name) for name in record.arrays}
    for name in record.files:
        if is_beside(name):
            continue
        data = output.read_file(name)
        if name.endswith(".safetensors"):
            tensors = sorted(load(data).items())
            # As one array, so that the tolerance is relative to the largest of all weights.
            values |= {name: np.concatenate([tensor.numpy().ravel() for _, tensor in tensors])}
        else:
            values |= {name: np.array(numbers(json.loads(data)))}
    return values


def numbers(value: Any) -> list[float]:
    """All numbers in plain JSON data, in order."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [float(value)] if isinstance(value, int | float) else []


@cache
def undisturbed(part: str, files) -> tuple[str, dict[str, tuple[str, dict[str, Any]]]]:
    """The store of an undisturbed run, and its outputs."""
    store = f"memory://fingerprints-{next(runs)}"
    return store, ran(tables_of(part, files), store)


def copied(store: str) -> str:
    """A copy of a store, to run a stage in again."""
    copy, memory = f"memory://fingerprints-{next(runs)}", fsspec.filesystem("memory")
    for path in memory.find(store):
        memory.pipe_file(copy.removeprefix("memory:/") + path.removeprefix(store.removeprefix("memory:/")), memory.cat_file(path))
    return copy


def settings_of(model: type[Settings]) -> list[str]:
    return [key for key in model.model_fields if key != "name"]


CASES = [
    *(("models.rar", "", key) for key in settings_of(Recipe) if key not in {*TABLES, "train", "sample", "evaluate"}),
    *(("models.rar", "train", key) for key in settings_of(TrainSettings)),
    *(("models.rar", "sample", key) for key in settings_of(rarkit.recipe.schema.SampleSettings)),
    *(("models.rar", "evaluate", key) for key in settings_of(rarkit.recipe.schema.EvaluateSettings) if key != "features"),
    *(
        (f"{kind.name}.{name}", kind.table, key)
        for kind in KINDS.values()
        for name, part in rarkit.parts().of_kind(kind.name).items()
        for key in settings_of(part)
    ),
]


def field_of(part: str, table: str, key: str):
    if table in TABLES:
        kind, name = part.split(".")
        return rarkit.parts().of_kind(kind)[name].model_fields[key]
    owner: Any = Recipe
    if table:
        owner = {"train": TrainSettings, "sample": rarkit.recipe.schema.SampleSettings}.get(
            table, rarkit.recipe.schema.EvaluateSettings
        )
    return owner.model_fields[key]


def other_value(part: str, table: str, key: str, current: Any) -> Any:
    """A value that differs from the setting's current one, with a reason (as a tuple) if no run can use it."""
    for name in (f"{part}.{key}", f"{table}.{key}".strip(".")):
        if name in CHANGED:
            return CHANGED[name]
    options = getattr(field_of(part, table, key).annotation, "__args__", ())
    if isinstance(current, bool):
        return not current
    if isinstance(current, int):
        return current + 1
    if isinstance(current, float):
        return current * 0.5 + 0.1
    if isinstance(current, str) and all(isinstance(option, str) for option in options) and len(options) > 1:
        return next(option for option in options if option != current)
    if isinstance(current, str):
        return f"another {current}"
    raise AssertionError(f"give {part} {table}.{key} = {current!r} another value in CHANGED")


def test_every_part_is_among_them():
    known = {f"{kind}.{name}" for kind in KINDS for name in rarkit.parts().of_kind(kind)}
    assert known <= {*PARTS, *WITHOUT_RUN}
    assert not any(settings_of(rarkit.parts().of_kind(part.split(".")[0])[part.split(".")[1]]) for part in WITHOUT_RUN)
    assert len(CASES) > 110


def changed_tables(part: str, table: str, key: str, files) -> dict[str, Any]:
    """The part's recipe with another value of a setting; skips the test if no run can use another value."""
    tables = tables_of(part, files)
    many, owner = table in TABLES and TABLES[table].many, parse_recipe(tables, rarkit.parts())
    for step in table.split(".") if table else ():
        owner = getattr(owner, step)[0] if many else getattr(owner, step)
    value = other_value(part, table, key, getattr(owner, key))
    if isinstance(value, tuple):
        pytest.skip(value[1])
    inner = tables
    for step in table.split(".") if table else ():
        inner = inner[step][0] if many else inner.setdefault(step, {})
    inner[key] = json.loads(json.dumps(value).replace("FILES", str(files)))
    return tables


@pytest.fixture
def quick_compilation(monkeypatch):
    """Compiles without inductor, which takes half a minute to start."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: torch._dynamo.optimize("aot_eager")(model))


@pytest.mark.parametrize(("part", "table", "key"), CASES, ids=lambda value: value or "recipe")
def test_what_changes_the_output_changes_the_fingerprint(part, table, key, files, quick_compilation):
    before = tables_of(part, files)
    after = changed_tables(part, table, key, files)
    mark = next((mark for mark in field_of(part, table, key).metadata if isinstance(mark, NotInFingerprint)), None)
    old, new = views(before, "memory://nothing"), views(after, "memory://nothing")
    same = [name for name, (fingerprint, _) in old.items() if new.get(name, ("", None))[0] == fingerprint]
    doubtful = tuple(name for name in same if new[name][1] != old[name][1])
    if doubtful:
        store, outputs = undisturbed(part, files)
        again = ran(after, copied(store), force=doubtful)
        for name in doubtful:
            assert_close(outputs[name][1], again[name][1], 0.0 if mark is None else mark.tolerance, f"{name} after {table}.{key}")
    if table in OBSERVERS:
        assert len(same) == len(old), f"{table}.{key} decides nothing"
    elif mark is None and key not in ONLY_ON_THE_PAGE:
        assert len(same) < len(old), f"{table}.{key} is in no fingerprint"


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("", "seed"),
        ("scan_order", "name"),
        ("train", "steps"),
        ("sample", "temperature"),
        ("evaluate", "yardsticks"),
        ("model", "depth"),
    ],
)
def test_stages_read_nothing_but_their_view(table, key, files):
    """All stages run in an empty store; those with the old fingerprint give the old bits."""
    after = tables_of("models.rar", files)
    value = {"seed": 1, "name": "spiral", "steps": 5, "temperature": 0.5, "yardsticks": False, "depth": 2}[key]
    (after.setdefault(table, {}) if table else after)[key] = value
    (_, before), again = undisturbed("models.rar", files), ran(after)
    same = [name for name in before if again.get(name, ("",))[0] == before[name][0]]
    assert len(same) < len(before)
    for name in same:
        assert_close(before[name][1], again[name][1], 0.0, f"{name} after {table}.{key}")


def assert_close(before: dict[str, Any], after: dict[str, Any], tolerance: float, context: str) -> None:
    assert before.keys() == after.keys(), context
    for name, values in before.items():
        assert values.shape == after[name].shape, (context, name)
        if tolerance == 0:
            np.testing.assert_array_equal(after[name], values, err_msg=f"{context}: {name}")
        else:
            largest = np.abs(np.nan_to_num(values.astype(np.float64), posinf=0, neginf=0)).max(initial=1e-30)
            np.testing.assert_allclose(after[name], values, rtol=0, atol=tolerance * largest, err_msg=f"{context}: {name}")


# Regressions, and effects of several settings together


def fingerprints(tables: dict[str, Any]) -> dict[str, str | None]:
    planned = plan(parse_recipe(tables, rarkit.parts()), "memory://fingerprints-planned")
    return {stage.name: stage.fingerprint for stage in planned.stages}


def changed(tables: dict[str, Any], **inside: dict[str, Any]) -> dict[str, Any]:
    return {**tables, **{table: {**tables.get(table, {}), **settings} for table, settings in inside.items()}}


def differing(tables: dict[str, Any], **inside: dict[str, Any]) -> set[str]:
    before, after = fingerprints(tables), fingerprints(changed(tables, **inside))
    return {name for name in before if before[name] != after.get(name)}


@pytest.mark.parametrize(
    ("base", "change", "stage"),
    [
        ({"sample": {"precision": "bfloat16"}}, {"sample": {"batch_size": 3}}, "sample"),
        ({}, {"attention": {"name": "plain"}}, "sample"),
        ({"train": {"optimizer": "muon"}}, {"train": {"muon_learning_rate": 0.1}}, "train"),
        ({"train": {"learning_rate_schedule": "wsd", "decay_steps": 2}}, {"train": {"decay_steps": 3}}, "train"),
    ],
)
def test_settings_that_count_together_enter_together(base, change, stage, files):
    tables = changed(tables_of("models.rar", files), **base)
    assert stage in differing(tables, **change)


@pytest.mark.parametrize("part", ["attention_backends.plain", "attention_backends.sdpa", "models.llama_ar"])
def test_masks_do_not_depend_on_the_micro_batch_or_on_compilation(part, files, quick_compilation):
    tables = changed(tables_of(part, files), model={"dropout": 0.3, "attention_dropout": 0.3})
    # No sampling of what is trained.
    training = {name: table for name, table in tables.items() if name not in ("sample", "evaluate")}
    _, whole = ran(training)["train"]
    for way in ({"micro_batch_size": 2}, {"compile": True}):
        assert differing(tables, train=way) == set()
        _, other = ran(changed(training, train=way))["train"]
        assert_close(whole, other, 1e-3, f"train with {way}")


def test_training_and_sampling_have_seeds_of_their_own(files):
    tables = tables_of("models.rar", files)
    assert differing(tables, train={"seed": 1}) == {"train", "sample", "evaluate"}
    assert differing(tables, sample={"seed": 1}) == {"sample", "evaluate"}
    # They are the recipe's unless given.
    given = changed(tables, train={"seed": 0}, sample={"seed": 0})
    assert fingerprints(given) == fingerprints(tables)
    assert fingerprints({**given, "seed": 1})["train"] != fingerprints({**tables, "seed": 1})["train"]
    identities = [
        {stage.name: stage.identity for stage in plan(parse_recipe(recipe, rarkit.parts()), "memory://fingerprints-planned").stages}
        for recipe in ({**given, "seed": 1}, {**tables, "seed": 1})
    ]
    assert [(own["train"].get("seed"), own["fit"]["seed"], own["evaluate"]["seed"]) for own in identities] == [(0, 1, 1), (1, 1, 1)]


def imported(files, folder) -> dict[str, Any]:
    """A recipe that trains on imported tokens of a 2 × 2 grid."""
    from rarkit.cache.token_lines import import_tokens

    lines = folder / "tokens.jsonl"
    lines.write_text("".join(json.dumps({"class_id": row % 2, "tokens": [row % 5] * 4}) + "\n" for row in range(8)))
    import_tokens(str(lines), str(folder / "tokens"), grid=(2, 2), codebook_size=5, num_classes=2)
    return changed(tables_of("models.rar", files), train={"tokens": str(folder / "tokens")})


def test_with_imported_tokens_the_tokenizer_decides_the_samples(files, tmp_path):
    tables = imported(files, tmp_path)
    assert "sample" in differing(tables, tokenizer={"iterations": 3})
    assert "train" not in differing(tables, tokenizer={"iterations": 3})
    assert "train" in differing(tables, dataset={"class_names": ["a", "b", "c"]})


def test_a_checkpoint_is_sampled_with_the_attention_that_the_recipe_names(files, tmp_path, monkeypatch):
    from rarkit.attention.plain import Plain
    from rarkit.files.weights import write_tensors

    tables = tables_of("attention_backends.plain", files)
    recipe = parse_recipe(tables, rarkit.parts())
    model = recipe.model.create(resolve(recipe).config, Plain().build(), 0)
    write_tensors(model.state_dict(), tmp_path / "model.safetensors", model.metadata())
    built, build = [], Plain.build
    monkeypatch.setattr(Plain, "build", lambda self: built.append("plain") or build(self))
    tables = {**{key: table for key, table in tables.items() if key not in ("train", "evaluate")}}
    ran(changed(tables, model={"weights": str(tmp_path / "model.safetensors")}))
    assert built == ["plain"]


@pytest.mark.parametrize("guidance", [Linear(scale=1.5), PowerCosine(scale=1.5, power=0), Interval(scale=1.5), Constant(scale=2.5)])
def test_guidance_schedules_do_not_share_a_fingerprint(guidance):
    assert Constant(scale=1.5).identity() != guidance.identity()


def test_a_new_setting_at_its_default_leaves_old_fingerprints(files):
    experiment = resolve(parse_recipe(tables_of("models.rar", files), rarkit.parts()))
    train = next(stage for stage in STAGES if stage.name == "train")
    grown = create_model("TrainSettings", __base__=TrainSettings, invented=(float, 0.0))
    settings = experiment.recipe.train.model_dump()

    def identity(**more):
        recipe = experiment.recipe.model_copy(update={"train": grown(**settings, **more)})
        return train.identity(train.view(experiment.with_recipe(recipe)))

    assert identity() == train.identity(train.view(experiment))
    assert identity(invented=0.1) != identity()
