"""A file that is written in portions, on a disk that is full: what is raised is what the first failure said."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest

from rarkit.cache.store import Store
from rarkit.errors import StoreError

LIMIT = 20_000


@contextmanager
def files_of_at_most(count):
    """As of ``ulimit -f``: what is written beyond fails, in ``write``, where the buffer is emptied at the end, or in both."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(output, *portions):
    with output.writing_file("a") as stream:
        for portion in portions:
            stream.write(portion)


@pytest.mark.parametrize("place", ["folder", "memory"])
@pytest.mark.parametrize("portions", [[LIMIT + 1], [LIMIT - 100, 200], [LIMIT, 100_000], [5000] * 6, [LIMIT - 10, 20, 9000]])
def test_a_full_disk_is_told_as_such(tmp_path, place, portions):
    store = str(tmp_path) if place == "folder" else f"memory://{tmp_path.name}"
    output = Store(store).output("train", "cafe")
    with output.writing({}):
        with pytest.raises(StoreError, match="too large"), files_of_at_most(LIMIT):
            write(output, *map(bytes, portions))
        assert output.file_names() == []
        write(output, b"whole")
        assert output.read_file("a") == b"whole"
    if place == "folder":
        assert not list(tmp_path.rglob(".rarkit-*"))
