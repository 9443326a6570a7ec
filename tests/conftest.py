"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadlines: a busy machine is no failure.
settings.register_profile("rarkit", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rarkit")
# Shells start what runs in the background with SIGINT ignored, and tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What has been imported stays: otherwise each full garbage collection looks through it, for half a second."""
    gc.freeze()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_conditionally_at_once() -> None:
    """Has moto look whether an object is there and write it in one step, as S3 does; it takes two."""
    from moto.s3.responses import S3Response

    put_object, one_at_a_time = S3Response.put_object, threading.Lock()

    def put(self):
        with one_at_a_time:
            return put_object(self)

    S3Response.put_object = put


@pytest.fixture(scope="session")
def s3_bucket():
    """A bucket on a real S3 protocol server (moto's) on loopback, with the environment pointing to it."""
    from moto.server import ThreadedMotoServer

    _write_conditionally_at_once()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=_free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("rarkit-tests")
    yield "rarkit-tests"
    server.stop()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@dataclass
class Requests:
    """What was asked of the S3 server, in order: ``GET /bucket/key``, ``LIST prefix``, …"""

    operations: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.operations)


@pytest.fixture(scope="session")
def s3_requests(s3_bucket):
    """``with s3_requests() as requests: …`` notes every HTTP request that reaches the server, whichever process sends it."""
    from flask import request, request_started

    @contextmanager
    def noting() -> Iterator[Requests]:
        requests = Requests()

        def note(sender: object, **_: object) -> None:
            is_listing = "list-type" in request.args
            requests.operations.append(f"LIST {request.args['prefix']}" if is_listing else f"{request.method} {request.path}")

        with request_started.connected_to(note):
            yield requests

    return noting


SHORT = (
    "tokenizer.codes=16",
    "tokenizer.iterations=3",
    "model.hidden_size=16",
    "model.depth=1",
    "model.num_heads=2",
    "train.steps=6",
    "train.batch_size=8",
    "train.warmup_steps=1",
    "train.checkpoint_every=2",
    "sample.per_class=30",
    "evaluate.features.steps=3",
    "evaluate.features.width=4",
    "evaluate.bootstrap=2",
)
"""Overrides that make recipes/digits.toml run in seconds, with two chunks of samples and three checkpoints."""
DIGITS = str(Path(__file__).parents[1] / "recipes/digits.toml")
SMALL = str(Path(__file__).parent / "data/small.toml")


@pytest.fixture(scope="session")
def short_overrides():
    return SHORT


@pytest.fixture(scope="session")
def digits_recipe():
    return DIGITS


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A store and a folder of results that an undisturbed short run left. Copy it before you change anything in it."""
    from rarkit import load_recipe, run

    folder = tmp_path_factory.mktemp("undisturbed")
    return run(load_recipe(DIGITS, SHORT), str(folder / "store"), device="cpu", runs=folder / "runs", quiet=True)


@pytest.fixture(scope="session")
def small_recipe():
    return SMALL


@pytest.fixture(scope="session")
def small_finished(tmp_path_factory):
    """What ``finished`` is to the short digits recipe, for ``small_recipe``."""
    from rarkit import load_recipe, run

    folder = tmp_path_factory.mktemp("small")
    return run(load_recipe(SMALL), str(folder / "store"), device="cpu", runs=folder / "runs", quiet=True)
