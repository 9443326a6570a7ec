"""Fingerprints: the names of stage outputs, made from everything that decides them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

SHORT = 10
"""Digits by which a fingerprint is shown."""


def fingerprint(stage: str, identity: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    """The name of a stage's output.

    Args:
        stage: the stage's name.
        identity: plain JSON data: its settings and the versions of its parts.
        upstream: the fingerprints of the outputs that it reads, by stage.

    Returns:
        20 hexadecimal digits of a SHA-256 over the canonical JSON of all three.
    """
    named = {"stage": stage, "identity": identity, "upstream": upstream}
    canonical = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def is_fingerprint(name: str) -> bool:
    """Whether a name looks like what ``fingerprint`` gives."""
    return re.fullmatch(r"[0-9a-f]{20}", name) is not None


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two identities: ``path: old → new`` for each leaf, in the order of the new one.

    Identities leave out what is at its default: that is shown as ``default``.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        changes = []
        for key in [*new, *(key for key in old if key not in new)]:
            below = f"{path}.{key}" if path else str(key)
            changes += differences(old.get(key), new.get(key), below)
        return changes
    # As JSON: 1 and 1.0 are equal, but not the same setting.
    return [] if json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True) else [f"{path}: {shown(old)} → {shown(new)}"]


def shown(value: Any) -> str:
    """A setting in a line: None, which is left out of identities, is the default; of hashes, people compare the first digits."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{10}|[0-9a-f]{20,}", value):
        return value[:SHORT]
    text = json.dumps(value, ensure_ascii=False) if value is not None else "default"
    return text if len(text) <= 60 else text[:57] + "…"
