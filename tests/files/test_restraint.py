"""What is fetched from other machines, and how long they are waited for."""

from __future__ import annotations

import socket
from contextlib import closing

import fsspec
import pytest

from rarkit import load_recipe
from rarkit.errors import DatasetError, NotFetchedError, RecipeError, WeightsError
from rarkit.files import restraint
from rarkit.files.locations import filesystem_of
from rarkit.files.restraint import fetching
from rarkit.files.weights import checksum


@pytest.fixture
def silent(monkeypatch):
    """The address of a server that takes connections and says nothing."""
    monkeypatch.setattr(restraint, "ANSWER", 0.2)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer(silent, tmp_path):
    (tmp_path / "x.toml").write_text(f'extends = "{silent}/base.toml"\n')
    with pytest.raises(RecipeError, match=r"base\.toml did not answer within .* Check the address and the network"):
        load_recipe(str(tmp_path / "x.toml"))
    with fetching("little"):
        # Once for all that lies there.
        for place, error in ((f"{silent}/a.npz", DatasetError), (f"zip://x::{silent}/b.zip", WeightsError)):
            with pytest.raises(error, match="did not answer"):
                filesystem_of(place, raising=error)


def test_an_address_where_nothing_is(tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}/base.toml"
    (tmp_path / "x.toml").write_text(f'extends = "{place}"\n')
    with pytest.raises(RecipeError, match=r"cannot be reached \(ClientConnectorError.* Check the recipe's address \(extended by"):
        load_recipe(str(tmp_path / "x.toml"))


def test_s3_without_credentials(monkeypatch, request):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    # fsspec keeps file systems: those of other tests, which have credentials, and this one, which has none.
    request.addfinalizer(fsspec.get_filesystem_class("s3").clear_instance_cache)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(RecipeError, match=r"NoCredentialsError.* Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws conf"):
        load_recipe("s3://bucket-of-nobody/x.toml")


def test_nothing_is_asked_where_nothing_may_be_fetched(silent):
    with fetching("nothing"), pytest.raises(NotFetchedError, match=r"a\.bin is on another machine and was not fetched"):
        checksum(f"{silent}/a.bin")


def test_the_stricter_one_holds_and_ends_with_its_block():
    with fetching("nothing"), fetching("all"), pytest.raises(NotFetchedError):
        filesystem_of("http://127.0.0.1:9/x")
    assert filesystem_of("http://127.0.0.1:9/x")[1].endswith("/x")


@pytest.mark.parametrize("place", ["simplecache::http://127.0.0.1:9/x", "tar://x::http://127.0.0.1:9/x.tar"])
def test_what_is_read_as_a_whole_is_large(place):
    with fetching("little"), pytest.raises(NotFetchedError):
        filesystem_of(place)
