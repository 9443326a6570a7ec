"""What tells the data of one output from that of another, wherever they lie: for tokens that were imported under no fingerprint."""

from __future__ import annotations

import hashlib
import json

from rarkit.cache.chunk_layout import CHECKSUM_BYTES
from rarkit.cache.output import StageOutput


def digest(output: StageOutput) -> str:
    """A SHA-256 over the layouts of all arrays and the checksums behind their chunks: the same data, the same digest.

    Raises:
        IncompleteError: the output is not whole.
    """
    checksum = hashlib.sha256()
    for name in sorted(output.require_complete().arrays):
        layout = output.layout(name)
        checksum.update(json.dumps([name, layout.as_json()]).encode())
        with output.reading_array(name):
            for block in range(layout.blocks):
                checksum.update(output.filesystem.cat_file(output.chunk_path(name, block), start=-CHECKSUM_BYTES))
    return checksum.hexdigest()
