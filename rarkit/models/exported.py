"""What an export for Hugging Face transformers says of a model. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final


@final
@dataclass(frozen=True)
class TransformersModel:
    """A model as a causal language model over the ids of its embedding table."""

    module: str
    """The dotted name of the module with its code, which is copied into the export. It imports torch, transformers, the standard
    library and modules of its own package of which that holds too."""
    name: str
    """The stem of its classes, ``<name>Config`` and ``<name>ForCausalLM``."""
    prompt_length: int
    """Ids before the first code. The last of them is the class."""
    vocabulary_size: int
    """Rows of the embedding table. The last ones are the classes and "no class"."""
    settings: Mapping[str, Any]
    """Entries of ``config.json``, as JSON data."""
