"""The metadata of a safetensors file, read for plans: without torch, and without the tensors."""

from __future__ import annotations

from pathlib import Path

from rarkit.errors import WeightsError
from rarkit.files.regular import open_regular
from rarkit.files.system_errors import system_error
from rarkit.files.weight_bounds import check_safetensors


def metadata_of(path: Path) -> dict[str, str]:
    """What a local safetensors file says besides its tensors.

    Raises:
        WeightsError: it is damaged, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open_regular(path, raising=WeightsError) as header:
            check_safetensors(header)
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, ValueError, RuntimeError, OverflowError) as error:
        if (told := system_error(error)) is not None:
            raise told from error
        raise WeightsError(f"{path} is damaged or not a safetensors file: {error}. Fetch it again.") from error
