"""Image tokenizers that learn, for rarkit: networks around the quantizers of vector-quantize-pytorch."""

from __future__ import annotations

from rarkit import Tokenizer, hookimpl
from rarkit_vq.quantizer_settings import FSQ, LFQ, VQ, SimVQ
from rarkit_vq.tokenizer import VQTokenizer

__all__ = ["FSQ", "LFQ", "VQ", "SimVQ", "VQTokenizer"]

requires_rarkit = ">=0.1,<0.2"


@hookimpl
def rarkit_tokenizers() -> list[type[Tokenizer]]:
    """Adds the tokenizer to rarkit."""
    return [VQTokenizer]
