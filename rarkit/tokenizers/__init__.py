"""Tokenizers, and the pieces for one whose network is somebody else's. Importing this loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rarkit.lazy import lazy_names

if TYPE_CHECKING:
    from rarkit.files.tensor_mismatches import length as length
    from rarkit.files.tensor_mismatches import numbered as numbered
    from rarkit.files.weight_files import companion as companion
    from rarkit.files.weights import checksum as checksum
    from rarkit.tokenizers._maskgit_network import MaskGITDecoder as MaskGITDecoder
    from rarkit.tokenizers.base import ImageDecoder as ImageDecoder
    from rarkit.tokenizers.base import LearnedState as LearnedState
    from rarkit.tokenizers.network_model import NetworkModel as NetworkModel
    from rarkit.tokenizers.network_model import nearest_codes as nearest_codes
    from rarkit.tokenizers.network_model import whole_grid as whole_grid
    from rarkit.tokenizers.network_weights import load_network as load_network
    from rarkit.tokenizers.network_weights import network_state as network_state
    from rarkit.tokenizers.network_weights import random_weights as random_weights

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "rarkit.files.tensor_mismatches": ["length", "numbered"],
        "rarkit.files.weight_files": ["companion"],
        "rarkit.files.weights": ["checksum"],
        "rarkit.tokenizers._maskgit_network": ["MaskGITDecoder"],
        "rarkit.tokenizers.base": ["ImageDecoder", "LearnedState"],
        "rarkit.tokenizers.network_model": ["NetworkModel", "nearest_codes", "whole_grid"],
        "rarkit.tokenizers.network_weights": ["load_network", "network_state", "random_weights"],
    },
)
