"""Where a recipe came from: what tells two recipes of one name apart."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class Origin:
    """A recipe's file, and what was changed when it was loaded."""

    file: str | None = None
    """An absolute path, or a URL; None for a recipe that was not loaded from a file."""
    changes: tuple[str, ...] = ()
    """The overrides, in the order in which they were given."""
    content: str = ""
    """``digest`` of the recipe when it was loaded."""

    @classmethod
    def of(cls, path: str, changes: tuple[str, ...]) -> Origin:
        """The origin of a recipe loaded from a path or URL. Links to the file's folder are followed, those to the file are not."""
        if "://" in path or "::" in path:
            return cls(path, changes)
        folder, name = os.path.split(os.path.abspath(path))
        return cls(os.path.join(os.path.realpath(folder), name), changes)

    def seen_from(self, folder: str) -> str | None:
        """The file relative to an absolute folder, so that it is the same after both have moved; a URL as it is."""
        if self.file is None or "://" in self.file or "::" in self.file:
            return self.file
        try:
            return os.path.relpath(self.file, folder).replace(os.sep, "/")
        except ValueError:
            # On Windows there is no way from one drive to another.
            return self.file


def digest(content: Any) -> str:
    """The SHA-256 of plain JSON data, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
