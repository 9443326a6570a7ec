"""Parquet files and data sets of the Hugging Face hub, for rarkit."""

from __future__ import annotations

from rarkit import Dataset, hookimpl
from rarkit_hf.huggingface import HuggingFace

__all__ = ["HuggingFace"]

requires_rarkit = ">=0.1,<0.2"


@hookimpl
def rarkit_datasets() -> list[type[Dataset]]:
    """Adds the dataset to rarkit."""
    return [HuggingFace]
