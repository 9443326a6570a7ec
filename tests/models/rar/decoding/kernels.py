"""Which tests need the compiled kernels."""

from __future__ import annotations

import sys

import pytest
import torch

from rarkit.errors import CapabilityError
from rarkit.models.rar.decoding.native_kernels import compiled_kernels
from rarkit.runtime.processors import is_x86


def why_none() -> str | None:
    """Why there are no kernels on this machine; None if there are."""
    if not is_x86(torch.device("cpu")) or not sys.platform.startswith("linux"):
        return "needs Linux on an x86 processor"
    try:
        compiled_kernels()
    except CapabilityError as error:
        return str(error)
    return None


NONE = why_none()
needs_kernels = pytest.mark.skipif(NONE is not None, reason=str(NONE))
