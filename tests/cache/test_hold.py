"""Nothing is written once the lock has expired, not even what was about to be."""

from __future__ import annotations

import json
import os
import time
from typing import final

import numpy as np
import pytest

from rarkit.cache.chunk_layout import Layout
from rarkit.cache.hold import Hold
from rarkit.cache.store import Store
from rarkit.errors import LockLostError

LAYOUT = Layout.of((2, 3), np.dtype(np.uint16), 2)
WRITES = {
    "record": lambda folder: folder.write_record(folder.record().changed(complete=False)),
    "metadata": lambda folder: folder.write_metadata("tokens", LAYOUT),
    "rows": lambda folder: folder.write_rows("tokens", 0, np.ones((2, 3), np.uint16)),
}


@final
class Expiring(Hold):
    """Expires right after the first check, as if the process had been stopped there for longer than it may hold the lock."""

    token = "token"

    def __init__(self, folder):
        self.folder, self.checks = folder, 0

    def check(self):
        # What is still to be imported or made would lie between the check and the write.
        assert self.folder._group is not None
        self.checks += 1
        if self.checks > 1:
            raise LockLostError("expired")

    def confirm(self):
        self.check()

    def seconds_left(self):
        return 0.0 if self.checks else 60.0


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("where", ["disk", "memory", "s3"])
def test_what_was_about_to_be_written_is_not(where, write, tmp_path, request):
    """A process that was stopped there wrote over what another had finished meanwhile."""
    name = f"hold-{os.getpid()}-{time.monotonic_ns()}"
    bucket = request.getfixturevalue("s3_bucket") if where == "s3" else ""
    place = {"disk": str(tmp_path), "memory": f"memory://{name}", "s3": f"s3://{bucket}/{name}"}[where]
    output = Store(place).output("fit", "f00d")
    with output.writing({}):
        output.write_array("tokens", np.zeros((2, 3), np.uint16))
        output.finish()

    def contents():
        output.filesystem.invalidate_cache()
        return {path: output.filesystem.cat_file(path) for path in output.filesystem.find(output.path)}

    before = contents()
    assert json.loads(before[next(path for path in before if path.endswith("f00d/zarr.json"))])["attributes"]["rarkit"]["complete"]
    folder = Store(place).output("fit", "f00d")._folder
    folder.record()
    folder.hold = Expiring(folder)
    with pytest.raises(LockLostError, match="expired"):
        write(folder)
    assert contents() == before
