"""What tells the outputs of a stage apart."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rarkit.cache.fingerprint import SHORT
from rarkit.cache.output import StageOutput
from rarkit.errors import StoreError


def telling_apart(outputs: Sequence[StageOutput]) -> dict[StageOutput, dict[str, Any]]:
    """For each output the settings, by dotted path, in which the outputs of its stage differ; None is the default.

    Where the outputs that they build on differ, ``<stage>`` is the fingerprint of that output. Nothing is told of an output whose
    record cannot be read.
    """
    stages: dict[str, dict[StageOutput, dict[str, Any]]] = defaultdict(dict)
    for output in outputs:
        stages[output.stage][output] = _settings(output)
    told: dict[StageOutput, dict[str, Any]] = {}
    for settings in stages.values():
        read = [own for own in settings.values() if own]
        paths = dict.fromkeys(path for own in read for path in own)
        differing = [path for path in paths if len({json.dumps(own.get(path), sort_keys=True) for own in read}) > 1]
        for output, own in settings.items():
            told[output] = {path: own.get(path) for path in differing} if own else {}
    return told


def _settings(output: StageOutput) -> dict[str, Any]:
    try:
        record = output.record()
    except StoreError:
        # Damaged, or of a newer rarkit.
        return {}
    if record is None:
        return {}
    return {**_flat(record.identity), **{name: fingerprint[:SHORT] for name, fingerprint in record.upstream.items()}}


def _flat(identity: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(identity, Mapping):
        return {path: identity}
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        flat |= _flat(value, f"{path}.{key}" if path else str(key))
    return flat
