"""Which file systems an address may name: those of a list, which only whoever runs rarkit can extend."""

from __future__ import annotations

import json
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarkit import load_recipe, plan
from rarkit.cache.store import Store
from rarkit.cache.token_records import token_files
from rarkit.datasets.image_folder import ImageFolder
from rarkit.datasets.npz import Npz
from rarkit.datasets.shards import samples
from rarkit.datasets.webdataset import WebDataset
from rarkit.errors import DatasetError, RarkitError, RecipeError, StoreError, UserError, WeightsError
from rarkit.files.locations import filesystem_of, opened
from rarkit.files.protocols import ALLOW, PLACES, READERS, is_remote, protocols_of
from rarkit.files.weights import checksum, write_tensors
from rarkit.pipeline.receipt import open_run

FORBIDDEN = ("reference", "dvc", "github", "ftp", "sftp", "generic", "dir", "filecache", "data", "git")


@pytest.fixture
def references(tmp_path):
    """The file of a ``reference://`` address: its template is evaluated when it is opened."""
    path = tmp_path / "refs.json"
    template = "{{ cycler.__init__.__globals__.os.mkdir('" + str(tmp_path / "planted") + "') }}"
    path.write_text(json.dumps({"version": 1, "templates": {"u": template}, "refs": {"recipe.toml": ["{{u}}/x"]}}))
    return path


def places(link):
    """Chains of up to three links, one of which is ``link``."""
    allowed = st.sampled_from(["zip://a", "simplecache", "tar://b", "memory://c", "s3://d/e", "https://f/g", "local.zip"])
    return st.tuples(st.lists(allowed, max_size=2), st.lists(allowed, max_size=1)).map(
        lambda around: "::".join([*around[0], link, *around[1]])
    )


@given(data=st.data(), protocol=st.sampled_from(FORBIDDEN))
def test_no_link_of_a_chain_may_name_another(protocol, data):
    place = data.draw(places(f"{protocol}://x"))
    expected = re.escape(f"{place} is refused: addresses in recipes may name ")
    with pytest.raises(StoreError, match=f"{expected}.*{protocol!r}.*allow it: {ALLOW}={protocol}\\."):
        filesystem_of(place, raising=StoreError)


def test_nothing_of_a_refused_file_system_is_loaded(references):
    before = set(sys.modules)
    for place in (f"reference://recipe.toml::{references}", f"zip://a::reference::{references}", "dvc://x", "smb://host/x"):
        with pytest.raises(DatasetError, match="is refused"):
            filesystem_of(place)
    assert not {name for name in set(sys.modules) - before if "reference" in name or name.startswith(("dvc", "smb"))}
    assert not (references.parent / "planted").exists()


def raised(error):
    raise error


def doors(place, tmp_path, digits_recipe):
    """Every way by which an address of a stranger comes in."""
    (tmp_path / "extends.toml").write_text(f'extends = "{place}"\n')
    yield RecipeError, lambda: load_recipe(str(tmp_path / "extends.toml"))
    yield RecipeError, lambda: load_recipe(place)
    yield StoreError, lambda: Store(place)
    yield StoreError, lambda: plan(load_recipe(digits_recipe), place)
    yield RarkitError, lambda: raised(plan(load_recipe(digits_recipe, [f"train.tokens={place}"]), "memory://doors").obstacle)
    yield RarkitError, lambda: raised(plan(load_recipe(digits_recipe, [f"train.init_from={place}"]), "memory://doors").obstacle)
    yield WeightsError, lambda: checksum(place)
    yield WeightsError, lambda: write_tensors({}, f"{place}.safetensors", {})
    yield DatasetError, lambda: ImageFolder(path=place).info()
    yield DatasetError, lambda: Npz(path=place).info()
    yield DatasetError, lambda: list(samples(place, {}))
    yield DatasetError, lambda: WebDataset(urls="a.tar", num_classes=2, sizes=place).files("train")
    yield DatasetError, lambda: token_files([place])
    for mode in ("rb", "wt"):
        yield DatasetError, lambda mode=mode: opened(place, mode).__enter__()


def test_every_door_is_closed(references, tmp_path, digits_recipe):
    place = f"reference://recipe.toml::{references}"
    for error, enter in doors(place, tmp_path, digits_recipe):
        with pytest.raises(error, match=r"is refused: .* but not 'reference'"):
            enter()


def test_the_store_of_a_receipt(finished, tmp_path, references):
    receipt = json.loads((finished.folder / "receipt.json").read_text())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/receipt.json").write_text(json.dumps({**receipt, "store": f"reference://x::{references}"}))
    with pytest.raises(UserError, match="is refused"):
        open_run(tmp_path / "run")


def test_whoever_runs_rarkit_may_extend_the_list(monkeypatch, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"weights")
    place = f"dir::file://{tmp_path}"
    with pytest.raises(DatasetError, match="is refused"):
        filesystem_of(place)
    monkeypatch.setenv(ALLOW, "ftp, dir")
    filesystem, _ = filesystem_of(place)
    assert filesystem.cat_file("a.bin") == b"weights"


def test_a_name_that_fsspec_does_not_know_is_misspelt():
    with pytest.raises(
        StoreError, match=r"^htps://a names a file system that nothing here knows, 'htps'\. Did you mean https://\?$"
    ):
        filesystem_of("htps://a", raising=StoreError)
    with pytest.raises(StoreError, match=r"'zzz'\. Use one of: file, .*simplecache\.$"):
        filesystem_of("zzz://a", raising=StoreError)


@pytest.mark.parametrize("place", ["zip://", "zip://x", "tar://x::", "simplecache::", "zip://a::simplecache", "::", "a::"])
def test_an_archive_of_nothing(place):
    with pytest.raises(DatasetError, match=f"^{re.escape(place)} does not say what it reads from"):
        filesystem_of(place)


@pytest.mark.parametrize("name", ["tar", "zip", "simplecache", "memory", "reference"])
def test_a_bare_name_is_that_of_a_file(name):
    assert protocols_of(name) == ["file"]
    assert filesystem_of(name)[1].endswith(f"/{name}")


def test_what_is_remote():
    assert not any(
        map(is_remote, ["photos", "/a/b", "file:///a", "memory://a", "zip://x::a.zip", "simplecache::memory://a", "C://x"])
    )
    assert all(
        map(is_remote, ["s3://a", "https://b/c", "zip://x::s3://a/b.zip", "simplecache::http://a", "hf://a/b", "zip::gs://a"])
    )
    assert all(is_remote(f"{protocol}://x") for protocol in PLACES if protocol not in ("file", "local", "memory"))
    assert not any(is_remote(f"{protocol}://x::a") for protocol in READERS)
